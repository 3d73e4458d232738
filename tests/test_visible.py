"""Text of others does nothing to a terminal, a log line, a notebook or the metadata of a card."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hubsplice import terminal
from hubsplice.card import render_card
from hubsplice.card.escape import clean
from hubsplice.errors import RecipeError
from hubsplice.rendering.content import Code, Line, Table
from hubsplice.rendering.drawing import as_text
from hubsplice.rendering.html import as_html
from hubsplice.visible import HIDDEN, visible, visible_json
from tests.card.examples import manifest
from tests.conftest import Command, MakeCheckpoint

# Clears a screen, turns text round, hides some, begins a line, and a title of the window.
HOSTILE = "a\x1b[2Jb\u202ec\u200bd\u2028e\u2029f\x85g\x9b1mh\x1b]0;t\x07i\rj\x7fk\ufeffl\U000e0041m"
SHOWN = (
    r"a\x1b[2Jb\u202ec\u200bd\u2028e\u2029f\x85g\x9b1mh\x1b]0;t\x07i\x0dj\x7fk\ufeffl\U000e0041m"
)


def hidden(text: str) -> list[str]:
    return HIDDEN.findall(text)


def test_hidden_characters_are_spelled_out() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible("Größe\tof 字, 👩‍💻\nand more") == "Größe\tof 字, 👩‍💻\nand more"


@given(st.text())
def test_no_text_hides_anything(text: str) -> None:
    assert not hidden(visible(text))
    assert not hidden(clean(text))
    assert visible(visible(text)) == visible(text)
    found = visible_json(json.dumps([text], ensure_ascii=False))
    assert not hidden(found)
    assert json.loads(found) == [text]


CONTENT = (
    Line(HOSTILE),
    Code(HOSTILE),
    Table((HOSTILE, "n"), ((HOSTILE, HOSTILE),), title=HOSTILE),
    Table.of_text((HOSTILE,), ((HOSTILE,),), HOSTILE),
)


def test_what_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert not hidden(as_text(CONTENT))
    assert not hidden(as_html(CONTENT))
    terminal.print_content(CONTENT)
    assert not hidden(capsys.readouterr().out)


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for say in (
        terminal.print_error,
        terminal.print_warning,
        terminal.print_note,
        terminal.print_line,
    ):
        say(HOSTILE)
    terminal.print_json({HOSTILE: HOSTILE})
    with terminal.show_progress() as report:
        report(f"reading: {HOSTILE}", 0, 1)
    out, err = capsys.readouterr()
    assert not hidden(out + err)
    assert SHOWN in out
    assert err.count(SHOWN) == 4
    assert json.loads(out.split("\n", 1)[1]) == {HOSTILE: HOSTILE}


def test_what_an_error_says() -> None:
    assert str(RecipeError(f"title: {HOSTILE}")) == f"title: {SHOWN}"


def test_nothing_else_prints() -> None:
    """Every line goes through one place, so that none is forgotten."""
    package = Path(terminal.__file__).parent
    prints = re.compile(r"\b(print|typer\.echo|click\.echo|sys\.std(out|err)\.write)\(|\bConsole\(")
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if prints.search(path.read_text(encoding="utf-8"))
    }
    # The version of hubsplice itself; JSON between processes; what is made of content.
    assert found == {
        "checkpoint/stock.py",
        "cli/app.py",
        "github_actions/__main__.py",
        "rendering/drawing.py",
        "terminal.py",
    }


def test_the_metadata_of_a_card() -> None:
    terms = {"license": "other", "license_name": HOSTILE, "license_link": HOSTILE}
    told = manifest()
    base = told.base.model_copy(update={"terms": told.base.terms.model_copy(update=terms)})
    bare = told.model_copy(update={"base": base, "files": {}})
    text = render_card(bare, None, model_id=HOSTILE)
    assert not hidden(text)
    head = text.split("---\n")[1]
    assert yaml.safe_load(head)["license_link"].endswith(clean(HOSTILE))


RECIPES: dict[str, dict[str, Any]] = {
    "an unknown kind": {"edits": [{"kind": HOSTILE, "feature": 1}]},
    "an unknown field": {HOSTILE: 1},
    "a file": {"edits": [{"kind": "steer", "vector": {"path": HOSTILE}, "strength": 1}]},
    "an SAE": {"sae": {"path": HOSTILE}},
    "a release": {"sae": {"release": HOSTILE, "id": HOSTILE}},
}


@pytest.mark.parametrize("case", RECIPES)
def test_a_hostile_recipe(
    case: str, command: Command, tiny_llama: MakeCheckpoint, tmp_path: Path
) -> None:
    recipe = {"base_model": str(tiny_llama()), "splices": [{"after_layer": 1, **RECIPES[case]}]}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    found = command("check", "recipe.yaml")
    assert found.code in (2, 4)
    assert not hidden(found.out + found.err)
    assert "Traceback" not in found.err


def test_hostile_names_and_files(
    command: Command, tiny_llama: MakeCheckpoint, tmp_path: Path
) -> None:
    base = tiny_llama()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": HOSTILE}))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"base_model: {base}\nsplices: [{{after_layer: 1}}]\n", encoding="utf-8")
    sae = tmp_path / "sae"
    sae.mkdir()
    (sae / "cfg.json").write_text(json.dumps({"architecture": HOSTILE, "d_in": 64, "d_sae": 96}))
    for arguments in (
        ("check", recipe),
        ("verify", HOSTILE),
        ("verify", f"me/{HOSTILE}"),
        ("serve", HOSTILE),
        ("check", HOSTILE.replace("\x07", "")),
    ):
        found = command(*arguments)
        assert found.code
        assert not hidden(found.out + found.err), arguments
