"""What a response curve does to a verdict, and how it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubsplice.fidelity.report import CurveFigures, read_report, write_report
from hubsplice.fidelity.verdict import judged
from tests.fidelity.test_verdict import edit, measured
from tests.pictures.examples import with_curves

RIGHT = CurveFigures(deviation=0.01, at=4.0, beyond=0.02, beyond_at=9.0, height=0.99)
WRONG = {
    "half": RIGHT.model_copy(update={"deviation": 0.5, "height": 0.5}),
    "moved": RIGHT.model_copy(update={"deviation": 0.9}),
    "silent": RIGHT.model_copy(update={"deviation": 1.0, "height": 0.0}),
}


def outcome(**fields: Any) -> tuple[str, str]:
    (found,) = judged(measured(edit(**fields))).edits
    return found.outcome, found.reason


def test_a_curve_alone_shows_nothing() -> None:
    rare = {"acted_tokens": 0, "acted_sequences": 0, "strength": None, "residual_error": None}
    assert outcome(curve=RIGHT, **rare)[0] == "not shown"
    assert outcome(curve=RIGHT)[0] == "shown"


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_curve_fails_whatever_the_text_says(kind: str) -> None:
    assert outcome(curve=WRONG[kind])[0] == "fails"
    rare = {"acted_tokens": 3, "acted_sequences": 1}
    found, reason = outcome(curve=WRONG[kind], **rare)
    assert found == "fails"
    assert "by itself" in reason


def test_what_lies_beyond_the_text_is_told_and_not_judged() -> None:
    far = RIGHT.model_copy(update={"beyond": 3.0})
    assert outcome(curve=far)[0] == "shown"


def test_a_report_has_the_numbers_of_a_curve_in_one_line(tmp_path: Path) -> None:
    made = with_curves("[\n1,\n2]", "[ 1, 2 ]")
    text = write_report(made, tmp_path).read_text(encoding="utf-8")
    assert '"exact": [0.0, 0.0, ' in text
    assert read_report(tmp_path) == made
