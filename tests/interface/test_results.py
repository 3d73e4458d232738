"""Results in a terminal and in a notebook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from IPython.lib.pretty import pretty
from rich.console import Console

import hubsplice
from hubsplice.rendering.content import Code, Line, Part, Table, Tone
from hubsplice.rendering.drawing import as_text
from hubsplice.rendering.html import as_html
from hubsplice.terminal import print_content
from hubsplice.verifying.statements.ledger import AuthorClaim
from hubsplice.verifying.statements.table import claims_table

PROGRESS: list[tuple[str, int, int]] = []


@pytest.fixture(scope="module")
def built(base: Path, sae: Path, tmp_path_factory: pytest.TempPathFactory) -> hubsplice.BuildResult:
    recipe = {
        "base_model": base,
        "splices": [
            {"sae": {"path": sae}, "edits": [{"feature": 3, "kind": "ablate", "label": "[red]<i>"}]}
        ],
        "calibration": {"tokens": 512, "sequence_length": 64},
        "fidelity": {"tokens": 256, "sequence_length": 64},
        "card": {"prompts": []},
    }
    output = tmp_path_factory.mktemp("interface") / "built"
    return hubsplice.build(recipe, str(output), progress=lambda *step: PROGRESS.append(step))


def words(html: str) -> str:
    return re.sub(r"<[^>]+>", " ", html)


def test_check_says_that_it_would_build(fields: dict[str, Any]) -> None:
    report = hubsplice.check(fields)
    first, *rest = str(report).splitlines()
    assert first == "The recipe would build."
    assert "1 scale" in "\n".join(rest)
    assert "1 scale" in report._repr_html_()


def test_a_build_shows_the_verdict_first(built: hubsplice.BuildResult) -> None:
    report = built.report
    assert report is not None
    assert report.verdict.startswith(str(built).splitlines()[0])
    assert words(built._repr_html_()).split()[:8] == report.verdict.split()[:8]
    assert str(built.folder) in built._repr_html_()
    assert {name for name, _, _ in PROGRESS} >= {"writing", "compiling"}
    console = Console(width=400, color_system=None, force_jupyter=False)
    with console.capture() as capture:
        console.print(built)
    assert capture.get().splitlines()[0] == report.verdict


def test_a_prompt_prints_the_same(built: hubsplice.BuildResult) -> None:
    assert pretty(built) == repr(built) == str(built)


def test_measuring_again_shows_the_same(built: hubsplice.BuildResult, base: Path) -> None:
    report = hubsplice.measure(built.folder, base=base, progress=False)
    assert report == built.report
    assert report._repr_html_().count("<table>") == 6


def test_verify_shows_every_check(built: hubsplice.BuildResult, base: Path) -> None:
    result = hubsplice.verify(built.folder, base=base, progress=False)
    assert result.passed
    assert result.verdict.startswith(str(result).splitlines()[0])
    claims = claims_table(result.claims, all_in="").rows
    assert claims
    assert result._repr_html_().count("<tr>") == 2 + len(result.checks) + len(claims)


def test_a_claim_is_named_whole_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    field = "layers[0].terms[0].amounts[1].of_the_largest_activation"
    why = "files can't show it; `hubsplice reproduce` calibrates again"
    claim = AuthorClaim(file="splice.json", field=field, stated="1", why=why)
    _head, _rule, *lines = as_text([claims_table([claim], all_in="")]).strip().splitlines()
    assert max(map(len, lines)) <= 80
    column = lines[0].index("splice.json")
    named = "".join(line[:column].strip() for line in lines)
    assert named == "layers[…].terms[…].amounts[…].of_the_largest_activation"


def test_verify_needs_an_engine_for_its_options() -> None:
    with pytest.raises(hubsplice.RecipeError, match="add --engine"):
        hubsplice.verify("anything", dtype="float32")


def test_nothing_is_printed_without_progress(
    built: hubsplice.BuildResult, base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hubsplice.verify(built.folder, base=base, progress=False)
    assert capfd.readouterr() == ("", "")


def test_text_is_neither_markup_nor_html() -> None:
    text = "[red]<script>&"
    content: list[Part] = [Line(text, Tone.BAD), Code(text), Table((text,), ((text,),), 1, text)]
    assert as_text(content).count(text) == 5
    html = as_html(content)
    assert "<script>" not in html
    assert html.count("[red]&lt;script&gt;&amp;") == 5


def test_numbers_stand_at_the_right() -> None:
    table = Table(("name", "n"), (("a", "1"), ("bb", "200")))
    assert [line.rstrip()[-1] for line in as_text([table]).splitlines() if line.strip()] == [
        "n",
        "─",
        "1",
        "0",
    ]
    assert as_html([table]).count('style="text-align:right"') == 3


def test_a_long_word_leaves_the_numbers_on_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    pattern = "regex=(?i)" + "|".join(f"planet{i}" for i in range(20))
    row = (pattern, "0.0625 (0.0111–0.283)", "0.562")
    shown = as_text([Table(("answers", "base", "this model"), (row,))])
    assert re.search(r"0\.0625 \(0\.0111–0\.283\) +0\.562$", shown, re.M)
    assert max(map(len, shown.splitlines())) <= 80
    assert pattern in re.sub(r"\s|0\.0625.*", "", shown)


@pytest.mark.parametrize("width", [30, 50, 72, 80, 90, 120, 200])
@pytest.mark.parametrize("text_columns", [0, 2])
def test_no_column_is_cut_whatever_the_width(
    monkeypatch: pytest.MonkeyPatch, width: int, text_columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = ("", "strength", "score", "KL", "perplexity", "distinct", "words", "task acc,none")
    row = ("→•", "1.5 x max", "0.833 [0.44, 0.97]", "0.0604 [0.043, 0.078]", "44.18", "0.98")
    table = Table(names, ((*row, "1,234", "0.25 ± 0.043"),), text_columns)
    shown = as_text([table])
    assert max(map(len, shown.splitlines())) <= width
    for cell in (*names, *row, "1,234", "0.25 ± 0.043"):
        for word in cell.split():
            assert word in shown, (word, shown)
    if width >= 50:
        assert "[0.44, 0.97]" in shown
        assert "[0.043, 0.078]" in shown
    if width == 80 and text_columns:
        assert shown.count("─\n") == 2
    if width == 120:
        assert "0.833 [0.44, 0.97]  0.0604 [0.043, 0.078]" in shown
        assert shown.count("─\n") == 1


def test_a_command_to_copy_is_never_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    command = f"  hubsplice evaluate {'long/' * 20}folder --prompts FILE"
    assert as_text([Code(command)]) == command
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_content([Code(command)])
    assert command in capsys.readouterr().out


def test_a_tone_for_every_verdict() -> None:
    assert [Tone.of(passed) for passed in (True, False, None)] == [
        Tone.GOOD,
        Tone.BAD,
        Tone.STRONG,
    ]
