"""Figures that a card has from an earlier measurement are told from its author's words."""

from __future__ import annotations

from typing import Any

import pytest

from hubsplice.card import render_card
from hubsplice.card.stale import METADATA, Stale, stale_parts
from hubsplice.evaluating.results import AnswersRecord, Evaluation
from tests.card.examples import manifest, report
from tests.card.test_evaluation import evaluation


def card(**options: Any) -> str:
    given: dict[str, Any] = {"evaluation": evaluation()}
    return render_card(manifest(), report(), model_id="me/model", **(given | options))


def changed(**fields: Any) -> Evaluation:
    """The same evaluation with other answers."""
    answers = evaluation().model_dump()["answers"] | fields
    return evaluation().model_copy(update={"answers": AnswersRecord.model_validate(answers)})


def score(name: str, edited: float) -> dict[str, Any]:
    figure = {"value": edited, "low": edited - 0.1, "high": edited + 0.1}
    return {"name": name, "base": figure, "edited": figure}


EVALUATED = "Does it do what it says, and what else does it do?"


def parts(found: tuple[Stale, ...]) -> list[str]:
    return [stale.part for stale in found]


def test_a_card_that_is_as_it_was_written_has_none() -> None:
    assert stale_parts(card(), card()) == ()


def test_words_of_the_author_are_no_figures() -> None:
    own = card().replace("## Fidelity\n", "## Fidelity\n\nI ran it 3 times, on 2 machines.\n")
    own = own.replace("max_new_tokens=50", "max_new_tokens=200")
    own = own.replace("tags:\n", "language: en\ntags:\n")
    own = own.replace("- The label of a feature is somebody's interpretation of it.\n", "")
    own += "\n## My benchmark\n\n| task | this model |\n| --- | --: |\n| mine | 0.99 |\n"
    assert stale_parts(own, card()) == ()


@pytest.mark.parametrize(
    ("now", "where"),
    [
        # Other figures of the same score, another score, and another number of prompts.
        (changed(scores=[score("regex=(?i)planet", 0.4)]), {METADATA, EVALUATED}),
        (changed(scores=[score("tokens=z", 0.9), score("compiles", 0.2)]), {EVALUATED}),
        (changed(prompts=41), {METADATA, EVALUATED}),
        (evaluation().model_copy(update={"dtype": "float32"}), set()),
    ],
)
def test_other_figures_are_told(now: Evaluation, where: set[str]) -> None:
    own = card() + "\nMy own remark.\n"
    assert where <= set(parts(stale_parts(own, card(evaluation=now))))


def test_figures_that_are_there_by_now_are_told() -> None:
    own = card(evaluation=None) + "\nMy own remark.\n"
    (found,) = stale_parts(own, card())
    assert found.part == EVALUATED
    assert found.found == "This was not evaluated."
    assert "that is measured by now" in str(found)
    unmeasured = render_card(manifest(), None, model_id="me/model")
    told = stale_parts(unmeasured, card(evaluation=None))
    assert "Fidelity" in parts(told)


def test_another_verdict_is_told() -> None:
    other = report(verdict="It does not do what the hook does.", passed=False)
    now = render_card(manifest(), other, model_id="me/model", evaluation=evaluation())
    (*_, verdict) = [stale for stale in stale_parts(card(), now) if stale.part == "Fidelity"]
    assert verdict.given == "> It does not do what the hook does."
    assert verdict.found.startswith("> Within the noise floor")


def test_other_figures_of_the_report_are_told() -> None:
    text = report().text.model_copy(update={"tokens": 4096})
    other = report().model_copy(update={"text": text})
    now = render_card(manifest(), other, model_id="me/model", evaluation=evaluation())
    assert parts(stale_parts(card() + "Mine.\n", now)) == ["Fidelity"]


def test_a_table_that_an_editor_drew_anew_is_the_same() -> None:
    anew = card().replace(" ------: |", " --: |").replace("| score compiles   ", "| score compiles")
    assert anew != card()
    assert stale_parts(anew, card()) == ()


def test_checksums_are_told() -> None:
    files = {**manifest().files, "model.safetensors": {"sha256": "0" * 64, "size": 1}}
    other = manifest(files=files)
    now = render_card(other, report(), model_id="me/model", evaluation=evaluation())
    (found,) = stale_parts(card(), now)
    assert found.part == "Verify and reproduce"


def test_a_checksum_in_a_sentence_is_told() -> None:
    text = report().text.model_copy(update={"token_ids_sha256": "0a" * 32})
    other = report().model_copy(update={"text": text})
    now = render_card(manifest(), other, model_id="me/model", evaluation=evaluation())
    (found,) = stale_parts(card(), now)
    assert found.part == "Fidelity"
    assert "0a" * 32 in found.given
