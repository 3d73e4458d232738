"""A recipe to play with: dials, what stands under tokens, HTML, and the command's refusals."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import hubsplice
from hubsplice.explore.answers import Answer
from hubsplice.explore.dials import dials, turned
from hubsplice.explore.gauges import Reading
from hubsplice.explore.generating import Sampling
from hubsplice.explore.page_html import answer_html, readings_html, warnings_html
from hubsplice.explore.sae_names import find_source, sae_source
from hubsplice.explore.showing import as_shown
from hubsplice.explore.workbench import Played, Workbench, workbench
from hubsplice.features.sae import load_sae
from tests.conftest import Command
from tests.explore.conftest import PLANTED, Planted

PROMPT = "a lazy zebra"


def fields_of(planted: Planted) -> dict[str, Any]:
    edits = [
        {"kind": "clamp", "feature": PLANTED, "to": 0, "label": "the letter"},
        {"kind": "steer", "feature": 3, "strength": "1 x norm"},
        {"kind": "ablate", "feature": 5},
    ]
    return {
        "base_model": str(planted.base),
        "splices": [{"sae": {"path": str(planted.sae)}, "edits": edits}],
        "calibration": {"tokens": 512, "sequence_length": 64},
    }


@pytest.fixture(scope="module")
def bench(planted: Planted) -> Iterator[Workbench]:
    recipe = hubsplice.Recipe(**fields_of(planted))
    with workbench(recipe, plain=True, progress=lambda *_: None) as found:
        yield found


def ask(bench: Workbench, *values: float) -> tuple[Played, list[Played]]:
    seen: list[Played] = []
    played = bench.ask(PROMPT, values, Sampling(max_new_tokens=8), seen.append)
    return played, seen


def test_there_is_a_dial_for_each_edit(bench: Workbench) -> None:
    clamp, steer, ablate = bench.dials
    assert (clamp.name, clamp.low, clamp.value) == (f"clamp feature {PLANTED} (the letter)", 0, 0)
    assert (steer.low, steer.value, steer.high, steer.unit) == (-2, 1, 2, "x norm")
    assert (ablate.knob, ablate.value, ablate.step) == (None, 1, 1)


def test_a_strength_of_zero_goes_as_far_as_the_feature_does(planted: Planted) -> None:
    recipe = hubsplice.Recipe(**fields_of(planted))
    assert [dials(recipe, known)[0].high for known in ({}, {PLANTED: 3.0})] == [10, 6]


def test_the_dials_say_what_is_done(bench: Workbench, planted: Planted) -> None:
    recipe = hubsplice.Recipe(**fields_of(planted))
    found = turned(recipe, dials(recipe, {}), [2.5, -0.5, 0])
    said = [edit.model_dump(mode="json") for edit in found.splices[0].edits]
    assert [one["kind"] for one in said] == ["clamp", "steer"]
    assert (said[0]["to"], said[1]["strength"]) == (2.5, "-0.5 x norm")
    assert turned(recipe, dials(recipe, {}), [0, 1, 1]) == recipe


def test_answers_are_those_of_the_recipe_and_grow(bench: Workbench, planted: Planted) -> None:
    played, seen = ask(bench, 0, 1, 1)
    expected = hubsplice.answers(
        fields_of(planted), PROMPT, plain=True, max_new_tokens=8, progress=False
    )
    texts = [answer.text for answer in played.compared.answers]
    assert texts == [answer.text for answer in expected.prompts[0].answers]
    assert texts[0] != texts[1]
    assert played.whole
    assert not any(one.whole for one in seen)
    lengths = [sum(a.tokens for a in one.compared.answers) for one in seen]
    assert lengths == list(range(1, len(lengths) + 1))


def test_with_nothing_to_do_the_edited_answer_is_the_base(bench: Workbench) -> None:
    nothing, _ = ask(bench, 0, 0, 0)
    before, after = nothing.compared.answers
    assert before.text == after.text


def test_under_each_token_stands_what_the_sae_says(bench: Workbench, planted: Planted) -> None:
    played, _ = ask(bench, 0, 1, 1)
    base, edited = played.readings
    assert [one.gauge for one in base] == [
        f"feature {PLANTED} (the letter), after layer 1",
        "feature 3, after layer 1",
        "feature 5, after layer 1",
    ]
    tokenizer = AutoTokenizer.from_pretrained(planted.base)
    ids = tokenizer(PROMPT).input_ids
    model = AutoModelForCausalLM.from_pretrained(planted.base, dtype=torch.float32)
    with torch.inference_mode():
        h = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0]
        sae = load_sae(find_source(sae_source(str(planted.sae)))).module
        expected = sae.encode(h)
        # What the edit makes of it is read again.
        changed = hubsplice.lower(fields_of(planted), progress=False).sites[0].edit(h)
        after = sae.encode(changed)
    for number, feature in enumerate((PLANTED, 3, 5)):
        for reading, of in ((base[number], expected), (edited[number], after)):
            assert reading.prompt == len(ids)
            assert len(reading.values) == len(reading.tokens) > len(ids)
            values = [0.0 if v is None else v for v in reading.values[1 : len(ids)]]
            torch.testing.assert_close(torch.tensor(values), of[1:, feature], atol=1e-3, rtol=1e-3)
    letter = [v for t, v in zip(base[0].tokens, base[0].values, strict=True) if t == "z"]
    assert letter
    assert all(letter)
    assert not torch.allclose(expected[1:, 3], after[1:, 3])


def test_what_a_showing_raises_ends_an_answer(bench: Workbench) -> None:
    seen: list[Played] = []

    def stop(played: Played) -> None:
        seen.append(played)
        if len(seen) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        bench.ask(PROMPT, [0, 1, 1], Sampling(max_new_tokens=8), stop)
    # And leaves no hook behind.
    assert (
        ask(bench, 0, 0, 0)[0].compared.answers[0].text
        == ask(bench, 0, 1, 1)[0].compared.answers[0].text
    )


def test_text_of_others_says_nothing_to_the_page() -> None:
    evil = "<img src=x onerror=alert(1)> ${alert(2)} {{x}} &amp; \x1b[31m\u202e"
    reading = Reading(evil, (evil, "ok", "x"), (12.34, None, -0.5), 1)
    for html in (
        answer_html(Answer(evil, evil, 3, ended=True), "something", whole=True),
        readings_html([reading], {evil: 12.34}),
        warnings_html([evil]),
    ):
        assert "<img" not in html
        assert "${" not in html
        assert "{{" not in html
        assert "\x1b" not in html
        assert "\u202e" not in html
    shown = readings_html([reading], {evil: 12.34})
    for part in (">12<", ">sink<", ">-0.5<", 'class="hs-prompt"', "0.75"):
        assert part in shown


def test_only_changed_words_are_marked() -> None:
    html = answer_html(Answer("edited", "the dog sat", 3, ended=False), "the cat sat", whole=False)
    assert html.count("<mark>") == 1
    assert "<mark>dog </mark>" in html
    assert "3 tokens …" in html


def test_what_is_shown_meanwhile_is_left_out_but_the_last() -> None:
    def work(show: Callable[[int], None]) -> None:
        for number in range(100):
            show(number)

    found = list(as_shown(work))
    assert found[-1] == 99
    assert found == sorted(set(found))


def test_closing_ends_what_works_and_errors_come_through() -> None:
    ended = threading.Event()

    def work(show: Callable[[int], None]) -> None:
        try:
            while True:
                show(1)
                time.sleep(0.001)
        finally:
            ended.set()

    shown = as_shown(work)
    assert next(shown) == 1
    shown.close()
    assert ended.wait(10)

    def fail(_show: Callable[[int], None]) -> None:
        raise hubsplice.RecipeError("no such strength")

    with pytest.raises(hubsplice.RecipeError, match="no such strength"):
        list(as_shown(fail))


def test_without_gradio_one_line_says_what_to_install(
    planted: Planted, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps(fields_of(planted)), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "gradio", None)
    outcome = command("try", "r.yaml", "--web")
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err == "error: --web needs the package gradio: pip install 'hubsplice[web]'\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--web", "--chat"], "--chat: it does not go with --web"),
        (["--web", "--strength", "1"], "--strength: it does not go with --web"),
        (["--web", "--json"], "--json: it does not go with --web"),
        (["--web", "a", "b"], "PROMPT: --web takes one"),
        (["hi", "--port", "80"], "--port: it goes only with --web"),
        (["hi", "--host", "x"], "--host: it goes only with --web"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], message: str, command: Command
) -> None:
    outcome = command("try", "r.yaml", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
