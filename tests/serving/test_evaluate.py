"""`hubsplice evaluate --backend vllm`: a real vLLM answers as transformers does, and runs tasks."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import pytest

import hubsplice
from hubsplice.evaluating.results import Compared, Evaluation, TaskRecord
from hubsplice.explore.generating import Generated, Sampling
from hubsplice.explore.vllm_answers import Vllm, VllmAnswers
from hubsplice.streams.vllm import VllmProcess
from tests.conftest import Command
from tests.evaluating.conftest import copy, lettered
from tests.evaluating.test_evaluate import PROMPTS, evaluated
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


def test_a_run_is_recorded_on_the_card(copy: Spliced, python: Path, command: Command) -> None:
    options = ["--base", copy.base, "--engine", "vllm", "--python", python, "--record"]
    code, out, err = command("verify", copy.folder, *options, "--max-new-tokens", "4", "--json")
    assert code == 0, err
    version = json.loads(out)["behaviour"]["version"]
    today = datetime.datetime.now(datetime.UTC).date()
    card = (copy.folder / "README.md").read_text(encoding="utf-8")
    assert f"- Verified with vLLM {version} on CPU, {today}, in bfloat16: it serves" in card
    assert "is on record" not in card
    # The card with the run is the one that the files give.
    assert copy.verify().passed


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


def test_sampled_answers_are_the_same_again(lettered: Spliced, python: Path) -> None:
    asked = [(prompt, (1, *range(4, 4 + i))) for i, prompt in enumerate(PROMPTS, start=1)]
    sampling = Sampling(max_new_tokens=8, temperature=1.0, top_p=0.95, seed=3)
    with VllmProcess(python) as process:
        answers = VllmAnswers(process, Vllm(python), "bfloat16")

        def drawn(sampling: Sampling) -> list[Generated]:
            return answers.generate(
                lettered.base, asked, [[5, 6], [7]], sampling=sampling, ends=frozenset({2})
            )[0]

        first, second = drawn(sampling), drawn(sampling)
        other, cut = drawn(replace(sampling, seed=4)), drawn(replace(sampling, max_new_tokens=3))
    assert [one.ids for one in first] == [one.ids for one in second]
    assert [one.ids for one in first] != [one.ids for one in other]
    for one, part in zip(first, cut, strict=True):
        assert part.ids == one.ids[:3]
        # Probabilities of the first token, before it is drawn.
        assert part.watched == pytest.approx(one.watched)
        assert 0 < sum(one.watched) < 1
