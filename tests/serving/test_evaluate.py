"""`hubsplice evaluate --backend vllm`: a real vLLM answers as transformers does, and runs tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

import hubsplice
from hubsplice.evaluating.results import Compared, Evaluation, TaskRecord
from tests.evaluating.conftest import copy, lettered
from tests.evaluating.test_evaluate import evaluated
from tests.evaluating.test_harness import QUESTIONS, tasks
from tests.verifying.conftest import Spliced

__all__ = ["copy", "lettered", "tasks"]

pytestmark = pytest.mark.serving


def figures(found: Evaluation) -> list[Compared]:
    assert found.answers is not None
    return [*found.answers.scores, found.answers.length]


def agree(one: Compared, other: Compared) -> bool:
    """Whether the intervals of both sides overlap."""
    sides = ((one.base, other.base), (one.edited, other.edited))
    return all(a and b and a.low <= b.high and b.low <= a.high for a, b in sides)


def test_scores_agree_with_those_of_transformers(copy: Spliced, python: Path) -> None:
    asked = {"scores": ["tokens=z", "regex=z"], "max_new_tokens": 8}
    served = evaluated(copy, backend="vllm", python=python, **asked)
    assert served.answers is not None
    assert served.answers.engine.startswith("vLLM ")
    target, matched, _ = figures(served)
    assert target.base is not None
    assert target.edited is not None
    assert matched.edited is not None
    assert target.base.high < 0.5 < target.edited.low
    assert matched.edited.value == 1
    here = evaluated(copy, **asked)
    assert served.neutral == here.neutral
    assert all(map(agree, figures(served), figures(here)))
    # The probability of the first token is that of transformers, but for its rounding.
    for side in ("base", "edited"):
        known = getattr(figures(here)[0], side).value
        assert getattr(target, side).value == pytest.approx(known, abs=0.02)
    assert copy.verify().passed


def test_sampled_answers_are_the_same_again(copy: Spliced, python: Path, tmp_path: Path) -> None:
    asked = {"scores": ["regex=[aeiou]"], "temperature": 0.8, "max_new_tokens": 8}
    first, second = (
        evaluated(copy, backend="vllm", python=python, answers=tmp_path / name, **asked)
        for name in ("first", "second")
    )
    assert first.answers == second.answers


def test_tasks_run_through_it(copy: Spliced, python: Path, tasks: Path) -> None:
    pytest.importorskip("lm_eval")

    def run(**options: object) -> TaskRecord:
        found = hubsplice.evaluate(
            copy.folder,
            base=copy.base,
            tasks=["letters"],
            include_path=tasks,
            progress=False,
            **options,  # type: ignore[arg-type]
        )
        return found.tasks[-1]

    served = run(backend="vllm", python=python)
    here = run()
    assert (served.backend, here.backend) == ("vllm", "hf")
    assert served.engine is not None
    assert served.engine.startswith("vLLM ")
    assert served.questions == len(QUESTIONS)
    (figure,), (known,) = served.figures, here.figures
    assert figure.edited == known.edited == 1
    # A question on which two letters are nearly alike may fall to either side.
    assert figure.base == pytest.approx(known.base, abs=1.5 / len(QUESTIONS))
