"""Answers before and after an edit: shared random numbers, strengths, conversations, marks."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import hubsplice
from hubsplice.explore.answers import never_held
from hubsplice.explore.generating import Asked, Sampling, generate
from hubsplice.explore.trial import Trial
from hubsplice.explore.words import changed_words, marked
from hubsplice.recipe.strengths import knob, with_strength
from hubsplice.streams.model import hooked, hooked_rows
from tests.building.conftest import save_sae
from tests.conftest import Command
from tests.explore.conftest import LETTER, PLANTED, Planted

PROMPTS = ["a lazy zebra", "jazz and more of it"]

_BOTH = torch.cat([torch.eye(64), -torch.eye(64)])
EXACT: dict[str, Any] = {
    "W_enc": _BOTH.T.contiguous(),
    "W_dec": _BOTH,
    "b_enc": torch.zeros(128),
    "b_dec": torch.zeros(64),
}
"""An SAE that fits anything."""


@pytest.fixture
def fields(planted: Planted) -> dict[str, Any]:
    edit = {"kind": "steer", "feature": 3, "strength": "1 x norm"}
    return {
        "base_model": str(planted.base),
        "splices": [{"sae": {"path": str(planted.sae)}, "edits": [edit]}],
        "calibration": {"tokens": 512, "sequence_length": 64},
    }


@pytest.fixture(scope="module")
def model(planted: Planted) -> Any:
    return AutoModelForCausalLM.from_pretrained(planted.base, dtype=torch.float32)


def texts(found: hubsplice.Answers, prompt: int = 0) -> list[str]:
    return [answer.text for answer in found.prompts[prompt].answers]


def answers(fields: dict[str, Any], prompts: Any = PROMPTS, **options: Any) -> hubsplice.Answers:
    options = {"max_new_tokens": 12, "progress": False} | options
    return hubsplice.answers(fields, prompts, **options)


def test_an_edit_changes_answers_and_no_edit_does_not(fields: dict[str, Any]) -> None:
    found = answers(fields, strengths=["0", "3"], temperature=1.0)
    for prompt in (0, 1):
        before, none, strong = texts(found, prompt)
        assert before == none
        assert before != strong
    assert [a.name for a in found.prompts[0].answers] == ["before", "0 x norm", "3 x norm"]


def test_answers_are_repeatable_and_depend_on_the_seed(fields: dict[str, Any]) -> None:
    first, again = (answers(fields, temperature=1.0, seed=1) for _ in range(2))
    other = answers(fields, temperature=1.0, seed=2)
    assert texts(first) == texts(again)
    assert texts(first)[0] != texts(other)[0]
    # What else is asked has no say.
    assert texts(answers(fields, PROMPTS[0], temperature=1.0, seed=1)) == texts(first)


def test_greedy_answers_are_those_of_transformers(
    fields: dict[str, Any], planted: Planted, model: Any
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(planted.base)
    ids = tokenizer("a lazy zebra", return_tensors="pt").input_ids
    edit = hubsplice.lower(fields, progress=False)
    asked = [Asked(tuple(ids[0].tolist()), each, "same") for each in (None, edit)]
    # A longer prompt in the batch, so that the others are padded.
    asked.append(Asked(tuple(range(3, 60)), None, "other"))
    found = generate(model, asked, Sampling(max_new_tokens=10), frozenset())
    base = model.generate(ids, max_new_tokens=10, do_sample=False, eos_token_id=None)
    with hooked(model, edit):
        edited = model.generate(ids, max_new_tokens=10, do_sample=False, eos_token_id=None)
    assert found[0].ids == tuple(base[0, ids.shape[1] :].tolist())
    assert found[1].ids == tuple(edited[0, ids.shape[1] :].tolist())


def test_each_row_has_its_own_edit(fields: dict[str, Any], model: Any) -> None:
    edit = hubsplice.lower(fields, progress=False)
    ids = torch.arange(3, 23)[None]
    with torch.inference_mode():
        base = model(ids).logits
        with hooked(model, edit):
            edited = model(ids).logits
        with hooked_rows(model, [None, edit, None]):
            found = model(ids.expand(3, -1)).logits
    torch.testing.assert_close(found[0], base[0])
    torch.testing.assert_close(found[1], edited[0])
    torch.testing.assert_close(found[2], base[0])
    assert (edited - base).abs().max() > 0.1


def test_temperature_and_nucleus_draw_from_the_distribution(model: Any) -> None:
    ids = tuple(range(3, 23))
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0, -1].softmax(dim=-1)
    asked = [Asked(ids, None, str(i)) for i in range(600)]
    one = Sampling(max_new_tokens=1, temperature=1.0)
    drawn = torch.tensor([g.ids[0] for g in generate(model, asked, one, frozenset())])
    counts = torch.bincount(drawn, minlength=len(expected)).double() / len(drawn)
    assert 0.5 * (counts - expected).abs().sum() < 0.35
    narrow = Sampling(max_new_tokens=1, temperature=1.0, top_p=1e-6)
    (top,) = {g.ids[0] for g in generate(model, asked[:20], narrow, frozenset())}
    assert top == int(expected.argmax())


def test_an_answer_ends_where_the_model_ends_it(model: Any) -> None:
    asked = [Asked(tuple(range(3, 23)), None, "a")]
    whole = generate(model, asked, Sampling(max_new_tokens=6), frozenset())[0]
    assert len(whole.ids) == 6
    assert not whole.ended
    end = whole.ids[3]
    cut = generate(model, asked, Sampling(max_new_tokens=6), frozenset({end}))[0]
    assert cut.ids == whole.ids[: whole.ids.index(end)]
    assert cut.ended


def test_changed_words_are_marked() -> None:
    assert marked("the cat sat down", "the dog sat down") == "the ‹dog› sat down"
    assert marked("a b", "a b") == "a b"
    assert marked("", "new words") == "‹new words›"
    assert changed_words("a b c", "a c") == (("a ", False), ("c", False))


def test_a_strength_sets_the_field_in_its_own_unit(fields: dict[str, Any]) -> None:
    recipe = hubsplice.Recipe(**fields)
    found = knob(recipe, None)
    assert found.path == "splices[0].edits[0].strength"
    for text, expected in (("2", "2 x norm"), ("0.5 x max", "0.5 x max"), ("-1e-1", "-0.1 x norm")):
        changed = with_strength(recipe, found, found.parse(text)).splices[0].edits[0]
        assert str(getattr(changed, "strength")) == expected  # noqa: B009


@pytest.mark.parametrize(
    ("edits", "edit", "strength", "message"),
    [
        ([{"kind": "ablate", "feature": 1}], None, "1", "has 0 edits with a strength"),
        ([{"kind": "ablate", "feature": 1}], 0, "1", r"0 \(ablate\) has no strength; `scale`"),
        ([{"kind": "ablate", "feature": 1}], 1, "1", r"found 1; the recipe's edits: 0 \(ablate\)"),
        ([{"kind": "scale", "feature": 1, "factor": 2}], 0, "1 x max", "expected a plain number"),
        ([{"kind": "add", "feature": 1, "strength": 2}], None, "loud", "--strength: expected a"),
        (
            [
                {"kind": "add", "feature": 1, "strength": 2, "label": "music, a little"},
                {"kind": "add", "feature": 2, "strength": 2},
            ],
            None,
            "1",
            r"has 2 edits with a strength, .*: 0 \(add, 'music, a little'\), 1 \(add\)",
        ),
    ],
)
def test_strengths_that_can_not_be_tried(
    fields: dict[str, Any], edits: list[Any], edit: int | None, strength: str, message: str
) -> None:
    fields["splices"][0]["edits"] = edits
    with pytest.raises(hubsplice.RecipeError, match=message):
        answers(fields, strengths=[strength], edit=edit)


@pytest.mark.parametrize("option", ["max_new_tokens", "temperature", "top_p", "seed"])
def test_sampling_that_makes_no_sense(fields: dict[str, Any], option: str) -> None:
    with pytest.raises(hubsplice.RecipeError, match=f"--{option}".replace("_", "-")):
        answers(fields, **{option: -1})


def write(fields: dict[str, Any], folder: Path) -> None:
    (folder / "r.yaml").write_text(json.dumps(fields), encoding="utf-8")


def test_the_command_shows_columns(
    fields: dict[str, Any], command: Command, tmp_path: Path
) -> None:
    write(fields, tmp_path)
    common = ["try", "r.yaml", "a lazy zebra", "--max-new-tokens", "8", "--strength", "0, 3"]
    shown = command(*common)
    assert shown.code == 0, shown.err
    assert "before" in shown.out
    assert "3 x norm" in shown.out
    assert "‹" in shown.out
    # A file or a pipe has no need of what fills a terminal's lines.
    assert all(line == line.rstrip() for line in shown.out.splitlines())
    found = json.loads(command(*common, "--json").out)
    assert [len(one["answers"]) for one in found["prompts"]] == [3]
    assert command("try", "r.yaml").code == 2


@pytest.mark.parametrize("strength", [[], ["--strength", "1"]])
def test_a_build_that_would_be_refused_is_not_recommended(
    fields: dict[str, Any], command: Command, tmp_path: Path, strength: list[str]
) -> None:
    arguments = ("try", "r.yaml", "a zebra", "--max-new-tokens", "2", *strength)
    save_sae(tmp_path / "exact", "standard", d_sae=128, **EXACT)
    save_sae(tmp_path / "scaled", "standard", d_sae=128, **EXACT | {"W_enc": 10 * EXACT["W_enc"]})
    told = {}
    for name in ("exact", "scaled"):
        fields["splices"][0]["sae"]["path"] = str(tmp_path / name)
        write(fields, tmp_path)
        outcome = command(*arguments)
        assert outcome.code == 0, outcome.err
        told[name] = outcome.err.splitlines()[-1]
    assert told["exact"].startswith("next: hubsplice ")
    assert told["scaled"].startswith("next: an SAE of this model and layer; a build refuses")


def test_a_conversation_goes_on(
    fields: dict[str, Any], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(fields, tmp_path)
    arguments = ["try", "r.yaml", "--chat", "--max-new-tokens", "6", "--json"]
    typed = io.StringIO("zz\nzz\n/quit\nnever asked\n")
    monkeypatch.setattr("sys.stdin", typed)
    rest: list[str] = []
    answered = Trial.ask

    def ask(trial: Trial, prompt: str, **options: Any) -> Any:
        rest.append(typed.getvalue()[typed.tell() :])
        return answered(trial, prompt, **options)

    monkeypatch.setattr(Trial, "ask", ask)
    outcome = command(*arguments)
    # Each line is answered before the next is read.
    assert rest == ["zz\n/quit\nnever asked\n", "/quit\nnever asked\n"]
    assert outcome.code == 0, outcome.err
    first, second = json.loads(outcome.out)["prompts"]
    assert first["prompt"] == second["prompt"] == "zz"
    # The same words after other words.
    assert first["answers"][0]["text"] != second["answers"][0]["text"]


def test_where_conditions_held_is_counted(fields: dict[str, Any]) -> None:
    often: dict[str, Any] = {"kind": "ablate", "feature": 3, "when": {"feature": PLANTED}}
    never = often | {"feature": 5, "when": {"feature": 4, "above": 1e6}}
    fields["splices"][0]["edits"] = [often, never]
    prompt = PROMPTS[0]
    found = answers(fields, prompt)
    of_letter, of_none = found.prompts[0].held
    assert (of_letter.answer, of_letter.in_prompt) == ("after", prompt.count(LETTER))
    assert of_letter.prompt_tokens >= len(prompt)
    assert of_letter.answer_tokens == 12
    assert (of_none.in_prompt, of_none.in_answer) == (0, 0)
    # A condition that holds somewhere is no warning.
    (warning,) = never_held(found.prompts)
    assert warning in found.warnings
    assert warning.startswith(
        "ablate feature 5 where feature 4 is above 1e+06: the condition held on no token"
    )
    assert str(of_letter) in " ".join(str(found).split())


def test_what_a_condition_names_is_found_by_another_name(fields: dict[str, Any]) -> None:
    sae = fields["splices"][0]["sae"]
    often: dict[str, Any] = {
        "kind": "ablate",
        "feature": 3,
        "when": {"feature": PLANTED, "sae": sae},
    }
    fields["splices"][0]["edits"] = [often]
    prompt = PROMPTS[0]
    (held,) = answers(fields, prompt).prompts[0].held
    assert held.in_prompt == prompt.count(LETTER)
