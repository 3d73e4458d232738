"""Strengths compared: scores, side effects, the choice, a record that goes on, and writing."""

from __future__ import annotations

import json
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

import hubsplice
from hubsplice.explore.generating import generate
from hubsplice.explore.intervals import Mean, mean
from hubsplice.explore.parsing import layers_of, strengths_of
from hubsplice.explore.scorers.base import SCORERS, Scorable
from hubsplice.explore.swept import Point, Sweep, judged
from hubsplice.explore.writing import replaced
from hubsplice.features.sae_registry import registry_entry
from hubsplice.recipe.strengths import knob
from tests.conftest import Command
from tests.explore.conftest import LETTER, PLANTED, Planted

PROMPTS = ["a lazy zebra", "jazz and more", "the wizard", "of a maze"]
YAML = """# mine
base_model: {base}
splices:
  - sae: {{path: {sae}}}  # an SAE
    edits:
      # the strength
      - {{kind: steer, feature: 3, strength: 1 x norm, label: "three # of"}}
calibration: {{tokens: 512, sequence_length: 64}}
"""


@pytest.fixture
def recipe(planted: Planted, tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(YAML.format(base=planted.base, sae=planted.sae), encoding="utf-8")
    return path


def sweep(recipe: Any, **options: Any) -> hubsplice.Sweep:
    given: dict[str, Any] = {
        "prompts": PROMPTS,
        "scores": ["regex=."],
        "strengths": ["0", "2"],
        "max_new_tokens": 6,
        "neutral_tokens": 256,
        "progress": False,
    }
    return hubsplice.sweep(recipe, **(given | options))


def test_strength_nothing_is_the_base_and_more_moves_it(recipe: Path) -> None:
    found = sweep(recipe, strengths=["0", "1", "4"])
    base, nothing, some, much = found.points
    assert base.name == "base"
    assert nothing.divergence.value == pytest.approx(0, abs=1e-9)
    assert nothing.perplexity == pytest.approx(base.perplexity, rel=1e-4)
    assert nothing.length == base.length
    assert 1e-3 < some.divergence.value < much.divergence.value
    assert found.edit == "splices[0].edits[0].strength"
    assert "three # of" in str(found)


def test_a_sweep_goes_on_where_it_was(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sweep(recipe)
    file = recipe.with_suffix(".sweep.jsonl")
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) == 3 * len(PROMPTS) + 3
    # Stopped while it wrote the seventh line.
    file.write_text("".join(lines[:6]) + lines[6][:40], encoding="utf-8")
    asked: list[int] = []

    def counted(model: Any, rows: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(len(rows))
        return generate(model, rows, *arguments, **options)

    monkeypatch.setattr("hubsplice.explore.questions.generate", counted)
    again = sweep(recipe)
    assert again == first
    # The base's answers are known, and a batch that was cut off is asked as a whole.
    assert sum(asked) == 2 * len(PROMPTS)
    asked.clear()
    assert sweep(recipe) == first
    assert not asked
    sweep(recipe, max_new_tokens=5)
    assert sum(asked) == 3 * len(PROMPTS)


def test_a_planted_probability_is_raised_and_chosen(planted: Planted, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(planted.base, dtype=torch.float32)
    (letter,) = AutoTokenizer.from_pretrained(planted.base)(
        LETTER, add_special_tokens=False
    ).input_ids
    # What the last layer writes is read at once.
    save_file({"v": model.lm_head.weight[letter].clone()}, tmp_path / "v.safetensors")
    fields = {
        "base_model": str(planted.base),
        "splices": [
            {
                "after_layer": 3,
                "edits": [{"kind": "steer", "vector": {"path": "v.safetensors"}, "strength": 1}],
            }
        ],
        "calibration": {"tokens": 512, "sequence_length": 64},
    }
    (tmp_path / "r.yaml").write_text(json.dumps(fields), encoding="utf-8")
    options: dict[str, Any] = {
        "scores": [f"tokens={LETTER}"],
        "strengths": ["-20", "0", "100", "400"],
    }
    more = sweep(tmp_path / "r.yaml", **options)
    base, less, same, much, most = (point.scores[0] for point in more.points)
    assert base is not None
    assert less is not None
    assert most is not None
    assert less.value < base.value < most.value
    assert same == base
    assert most.value > 0.5
    assert much is not None
    assert more.chosen is not None
    assert more.chosen.name in ("100", "400")
    fewer = sweep(tmp_path / "r.yaml", want="less", **options)
    assert fewer.chosen is None or fewer.chosen.name == "-20"


def test_layers_are_swept(recipe: Path) -> None:
    found = sweep(recipe, strengths=["2"], layers=[1, 2])
    assert [(point.name, point.layer) for point in found.points[1:]] == [
        ("2 x norm", 1),
        ("2 x norm", 2),
    ]
    assert found.points[1].divergence != found.points[2].divergence
    assert any("after_layer: 2, while" in warning for warning in found.warnings)
    with pytest.raises(hubsplice.RecipeError, match="layer"):
        sweep(recipe, strengths=["2"], layers=[9])


def test_the_command_writes_strength_evidence_and_picture(
    recipe: Path, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    outcome = command(
        *("sweep", "r.yaml", "--prompts", "p.txt", "--score", r"regex=[a-z]", "--strengths"),
        *("0:6:3", "--max-new-tokens", "6", "--neutral-tokens", "256", "--plot", "s.svg"),
    )
    assert outcome.code == 0, outcome.err
    assert "6 x norm" in outcome.out
    assert "└──" in outcome.out
    drawing = ElementTree.parse(tmp_path / "s.svg").getroot()
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}circle"))) == 4


def test_a_recipe_without_a_better_strength_stays_and_that_is_said(
    recipe: Path, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    text = recipe.read_text(encoding="utf-8")
    outcome = command(
        *("sweep", "r.yaml", "--prompts", "p.txt", "--score", "regex=never, ever", "--strengths"),
        *("1", "--max-new-tokens", "2", "--neutral-tokens", "256", "--write"),
    )
    assert outcome.code == 0, outcome.err
    assert "r.yaml was left as it was" in outcome.err
    assert recipe.read_text(encoding="utf-8") == text


def test_a_strength_is_written_and_all_else_stays(recipe: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    found = knob(hubsplice.load_recipe(recipe), None)
    new = replaced(text, found, found.parse("2.5"), "hubsplice sweep: fine")
    assert new == text.replace("1 x norm", "2.5 x norm").replace(
        "      - {kind", "      # hubsplice sweep: fine\n      - {kind"
    )
    # Earlier evidence gives way.
    assert replaced(new, found, found.parse("2.5"), "hubsplice sweep: fine") == new


def point(name: str, score: tuple[float, float, float], divergence: float) -> Point:
    found = Mean(divergence, divergence, divergence, 8)
    return Point(name, None, (Mean(*score, 8),), found, 1.0, None, Mean(5, 5, 5, 8))


def test_the_choice_is_the_cheapest_that_can_not_be_told_from_the_best() -> None:
    points = (
        point("base", (0.1, 0.05, 0.2), 0.0),
        point("a", (0.15, 0.1, 0.3), 0.1),
        point("b", (0.7, 0.5, 0.85), 0.2),
        point("c", (0.65, 0.5, 0.8), 0.5),
        point("d", (0.8, 0.6, 0.9), 3.0),
    )
    found = judged(points, "more")
    assert [p.name for p in found if p.chosen] == ["b"]
    assert [p.name for p in found if p.front] == ["base", "a", "b", "d"]
    assert not [p for p in judged(points, "less") if p.chosen]
    down = judged((point("base", (0.9, 0.8, 1.0), 0.0), point("a", (0.2, 0.1, 0.3), 1.0)), "less")
    assert [p.name for p in down if p.chosen] == ["a"]


def test_strengths_that_the_rules_leave_out_are_named() -> None:
    def told(want: Literal["more", "less"], *points: Point) -> str:
        found = Sweep("e", "l", ("regex=x",), want, judged(points, want), 8, 256, "a.jsonl")
        return " ".join(str(found).split())

    base = point("base", (0.0, 0.0, 0.39), 0.0)
    weak, some = point("0.5", (0.167, 0.03, 0.56), 0.109), point("1", (0.5, 0.19, 0.81), 0.228)
    best = point("1.5", (0.833, 0.44, 0.97), 0.455)
    assert (
        "→ 1.5: the least divergence among the strengths that can't be told from the best. Left "
        "out: 0.5 (within the base's interval, up to 0.39); 1 (the interval ends below the best, "
        "0.833)." in told("more", base, weak, some, best)
    )
    near = point("1", (0.5, 0.19, 0.84), 0.228)
    assert "Left out: 0.5 (within" in told("more", base, weak, near, best)
    assert "ends below" not in told("more", base, weak, near, best)
    assert "Left out" not in told("more", base, near, best)
    assert "Left out" not in told("more", base, weak)
    base, some = point("base", (0.9, 0.7, 1.0), 0.0), point("2", (0.5, 0.3, 0.6), 0.1)
    less = told("less", base, point("1", (0.8, 0.6, 0.9), 0.1), some, point("3", (0.1, 0, 0.2), 1))
    assert "1 (within the base's interval, down to 0.7); 2 (the interval ends above" in less
    unknown = replace(best, name="a", scores=(None,))
    assert "Left out: a (no answer counts)." in told("more", weak, best, unknown)


def test_answers_that_go_in_circles_are_told() -> None:
    def swept(distinct: float) -> str:
        base, best = point("base", (0.5, 0.4, 0.6), 0.0), point("a", (0.1, 0.0, 0.2), 0.1)
        points = (
            replace(base, distinct=Mean(0.9, 0.8, 1.0, 8)),
            replace(best, distinct=Mean(distinct, distinct, distinct, 8)),
        )
        return str(Sweep("e", "l", ("regex=x",), "less", judged(points, "less"), 8, 256, "a.jsonl"))

    assert "At a answers repeat themselves: distinct is 0.60, the base's 0.90." in swept(0.6)
    assert "repeat themselves" not in swept(0.8)


@pytest.mark.parametrize(
    ("want", "base", "says"),
    [
        ("less", 0.0, "The base never does it on these prompts, so less of it can't be shown"),
        ("more", 1.0, "The base always does it on these prompts, so more of it can't be shown"),
        ("more", 0.0, "No strength does better than the base beyond its interval"),
        ("less", 0.5, "No strength does better than the base beyond its interval"),
    ],
)
def test_a_base_that_leaves_no_room_is_told(
    want: Literal["more", "less"], base: float, says: str
) -> None:
    points = (point("base", (base, 0.0, 1.0), 0.0), point("a", (base, 0.0, 1.0), 0.1))
    found = Sweep("e", "l", ("regex=x",), want, judged(points, want), 8, 256, "a.jsonl")
    assert says in str(found)


def test_all_columns_of_a_sweep_stand_beside_each_other_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    points = tuple(
        replace(
            point(name, (0.167, 0.03, 0.56), 0.0604),
            divergence=Mean(0.0604, 0.043, 0.078, 8),
            perplexity=34.63,
            distinct=Mean(0.9, 0.8, 1.0, 8),
        )
        for name in ("base", "1.5 x max")
    )
    scorer = r"regex=(?i)\b(music|song)"
    shown = str(Sweep("e", "l", (scorer,), "more", judged(points, "more"), 8, 256, "a.jsonl"))
    (heading,) = (line for line in shown.splitlines() if "strength  " in line)
    assert heading.split()[2:] == ["KL", "perplexity", "distinct", "words"]
    rows = [line.split() for line in shown.splitlines() if "34.63" in line]
    assert [row[-3:] for row in rows] == [["34.63", "0.90", "5"]] * 2
    assert "[0.043, 0.078]" in shown
    assert "1.5 x max " in shown


def test_intervals() -> None:
    nothing = mean([0.0] * 10)
    assert nothing == Mean(0, 0, 0, 10)
    none = mean([0.0] * 10, shares=True)
    assert none is not None
    assert (none.value, none.low) == (0, 0)
    assert 0.2 < none.high < 0.35
    assert mean([]) is None
    some = mean([1.0, 2.0, 3.0, 4.0])
    assert some is not None
    assert 1 <= some.low < some.value == 2.5 < some.high <= 4


def test_scorers() -> None:
    kinds = dict(SCORERS.items())
    assert set(kinds) >= {"regex", "tokens", "compiles"}
    regex = kinds["regex"].model_validate({"kind": "regex", "pattern": r"\bcat"})
    assert [regex.score(Scorable("", text)) for text in ("a cat", "concat")] == [1.0, 0.0]
    compiles = kinds["compiles"].model_validate({"kind": "compiles"})
    code = ("none", "```python\nx = 1\n```", "```\nx = = 1\n```", "```py\nx = (1")
    assert [compiles.score(Scorable("", text)) for text in code] == [None, 1.0, 0.0, 0.0]
    assert compiles.score(Scorable("", "```\n" + "(" * 9000 + "\n```")) == 0.0
    # The prompt has opened the fence, and begun the code.
    asked = "```\nx = 1\n```\nAnother:\n```python\ndef f():\n"
    for text, parses in (("    return 1\n```\nIt is one.", 1.0), ("return 1", 0.0)):
        assert compiles.score(Scorable(asked, text)) == parses


class _Endpoint(BaseHTTPRequestHandler):
    """Gives every answer a 7, and keeps what it is asked."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        reply = {"choices": [{"message": {"content": "Mark: 7 of 10"}}]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    _Endpoint.asked.clear()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_judge_is_asked_once_for_each_answer(recipe: Path, endpoint: str, tmp_path: Path) -> None:
    judge = {
        "kind": "judge",
        "endpoint": endpoint,
        "model": "j",
        "prompt": "Is {answer} an answer to {prompt}?",
    }
    (tmp_path / "judge.yaml").write_text(json.dumps(judge), encoding="utf-8")
    found = sweep(recipe, scores=[f"@{tmp_path / 'judge.yaml'}"])
    assert [p.scores[0] and p.scores[0].value for p in found.points] == [pytest.approx(0.7)] * 3
    asked = len(_Endpoint.asked)
    assert asked >= len(PROMPTS)
    assert PROMPTS[0] in _Endpoint.asked[0]["messages"][0]["content"]
    assert sweep(recipe, scores=[judge]) == found
    assert len(_Endpoint.asked) == asked
    with pytest.raises(hubsplice.HubspliceError, match=r"judge: http://127\.0\.0\.1:9/v1"):
        sweep(recipe, scores=[judge | {"endpoint": "http://127.0.0.1:9/v1"}])


def test_numbers_of_a_command_line() -> None:
    assert list(strengths_of("0:4:3")) == ["0", "2", "4"]
    assert list(strengths_of("1, 0.5 x max")) == ["1", "0.5 x max"]
    assert layers_of("3,5") == (3, 5)
    assert layers_of("3:7:2") == (3, 5, 7)
    assert layers_of("3:4") == (3, 4)
    for wrong in ("0:1", "0:1:1", "a:b:c", "0:inf:3"):
        with pytest.raises(hubsplice.RecipeError, match="--strengths"):
            list(strengths_of(wrong))
    for wrong in ("", "a", "5:3", "1:2:0"):
        with pytest.raises(hubsplice.RecipeError, match="--layers"):
            layers_of(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": []}, "--score: missing"),
        ({"scores": ["regex"]}, "expected regex=PATTERN"),
        ({"scores": ["compiles=x"]}, "expected compiles"),
        ({"scores": ["regex=("]}, "is no regular expression"),
        ({"scores": ["@missing.yaml"]}, "--score: there is no file missing.yaml"),
        ({"scores": [{"kind": "judge", "endpoint": "file:///x"}]}, "expected http://"),
        ({"scores": ["rgex=a"]}, "Did you mean 'regex'"),
        ({"strengths": []}, "--strengths: none"),
        ({"prompts": []}, "--prompts: none"),
        ({"plot": "a.gif"}, "expected '.svg' or '.png'"),
        ({"write": True, "layers": [1]}, "--write: it needs one place"),
    ],
)
def test_sweeps_that_can_not_be_run(recipe: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(hubsplice.RecipeError, match=message):
        sweep(recipe, **options)


def test_prompts_in_json_are_those_of_an_evaluation(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("[]", encoding="utf-8")
    expected = r"--prompts: .*p.json ends in .\.json., expected .*, or a file that is called eval"
    with pytest.raises(hubsplice.RecipeError, match=expected):
        sweep(recipe, prompts=tmp_path / "p.json")


def test_a_file_of_something_else_is_not_added_to(recipe: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("my notes\nmore of them\n", encoding="utf-8")
    with pytest.raises(hubsplice.RecipeError, match="line 1: it is no line of a sweep"):
        sweep(recipe, answers=other)
    assert other.read_text(encoding="utf-8") == "my notes\nmore of them\n"


def test_a_recipe_without_a_file_needs_one_for_answers(recipe: Path) -> None:
    parsed = hubsplice.load_recipe(recipe)
    with pytest.raises(hubsplice.RecipeError, match="answers: missing"):
        sweep(parsed)
    with pytest.raises(hubsplice.RecipeError, match="--write: it needs a recipe's file"):
        sweep(parsed, write=True)
    assert PLANTED not in parsed.splices[0].edits[0].feature_indices()


NO_REGEX = Path(__file__).parents[2] / "examples/no-regex"


@pytest.mark.parametrize("name", ["gemma-2-9b-it", "gemma-2-2b-it"])
def test_the_recipes_of_the_example_name_what_is_there(name: str) -> None:
    recipe = hubsplice.load_recipe(NO_REGEX / f"{name}.yaml")
    (splice,) = recipe.splices
    assert splice.sae is not None
    assert splice.sae.release is not None
    assert splice.sae.id is not None
    entry = registry_entry(splice.sae.release, splice.sae.id)
    entry.require_supported()
    assert entry.model in name
    assert f"average_l0_{entry.l0:.0f}" in splice.sae.id


def test_a_contrast_from_examples_is_swept_and_its_file_counts(
    recipe: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("a lazy zebra\njazz bands", encoding="utf-8")
    (tmp_path / "n.txt").write_text("a lasy sebra\njass bands", encoding="utf-8")
    text = recipe.read_text(encoding="utf-8").replace(
        "feature: 3, strength: 1 x norm",
        "contrast: {positive: p.txt, negative: n.txt}, strength: 1 x norm",
    )
    recipe.write_text(text, encoding="utf-8")
    first = sweep(recipe)
    assert first.points[2].divergence.value > 1e-3
    (tmp_path / "n.txt").write_text("two calm horses\nrock bands", encoding="utf-8")
    assert sweep(recipe).points[2].divergence != first.points[2].divergence
