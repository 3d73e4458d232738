"""Answers from another engine's process: what it is asked, and what becomes of what it says.

The process here is a stand-in that says the same to everything; `tests/serving` runs a real one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import hubsplice
from hubsplice.explore.generating import Sampling
from hubsplice.explore.harness import Settings
from hubsplice.explore.vllm_answers import Vllm, VllmAnswers
from hubsplice.streams.vllm import VllmProcess
from tests.conftest import Command
from tests.evaluating.test_evaluate import PROMPTS, evaluated
from tests.verifying.conftest import Spliced

# It answers `z` to everything and ends there: 122 is its token, and 0 ends an answer.
STAND_IN = """#!{python}
import json, math, pathlib, sys
log = pathlib.Path(__file__).with_name("asked.jsonl")
for line in sys.stdin:
    given, made = map(pathlib.Path, json.loads(line))
    job = json.loads(given.read_text())
    log.open("a").write(json.dumps(job) + "\\n")
    answer = {{"tokens": {tokens}, "ended": True}}
    batches = [
        [{{**answer, "watched": [math.log(0.25) for _ in one["watched"]]}} for one in batch]
        for batch in job["batches"]
    ]
    part = made.with_suffix(".part")
    part.write_text(json.dumps({{"version": "9.9", "device": "cpu", "batches": batches}}))
    part.replace(made)
"""


def stand_in(folder: Path, tokens: list[int]) -> Path:
    interpreter = folder / "python"
    interpreter.write_text(STAND_IN.format(python=sys.executable, tokens=tokens), encoding="utf-8")
    interpreter.chmod(0o755)
    return interpreter


def test_answers_come_from_the_other_process(copy: Spliced, tmp_path: Path) -> None:
    (letter,) = AutoTokenizer.from_pretrained(copy.base)("z", add_special_tokens=False).input_ids
    python = stand_in(tmp_path, [letter, letter, 2])
    found = evaluated(copy, backend="vllm", python=python, model_args="max_num_seqs=3")
    assert found.answers is not None
    assert found.answers.engine == "vLLM 9.9"
    for score in found.answers.scores:
        # The letter is one token with a space before it, and another one without.
        assert score.base == score.edited
    assert found.answers.scores[0].base is not None
    assert found.answers.scores[0].base.value in (0.25, 0.5)
    assert found.answers.length.base is not None
    assert found.answers.length.base.value == 1
    # Neutral text was read here, by the models themselves.
    assert found.neutral is not None
    assert found.neutral.divergence.low > 0.1
    jobs = [json.loads(line) for line in (tmp_path / "asked.jsonl").read_text().splitlines()]
    assert len(jobs) == 2
    for job in jobs:
        assert job["options"]["max_num_seqs"] == 3
        assert job["options"]["dtype"] == "bfloat16"
        assert len(job["batches"][0]) == len(PROMPTS)
        assert job["batches"][0][0]["ends"] == [2]
    assert (
        "in bfloat16 on vLLM 9.9, for at most 4 tokens" in (copy.folder / "README.md").read_text()
    )
    assert copy.verify().passed
    # All is known: nothing is started.
    python.unlink()
    again = evaluated(copy, backend="vllm", python=python, model_args="max_num_seqs=3")
    assert again == found
    # What transformers answers is another answer.
    assert evaluated(copy).answers != found.answers


def test_a_prompt_has_the_same_random_numbers_with_every_model(
    lettered: Spliced, tmp_path: Path
) -> None:
    python = stand_in(tmp_path, [3, 2])
    with VllmProcess(python) as process:
        answers = VllmAnswers(process, Vllm(python), "bfloat16")
        for folder in (lettered.base, lettered.folder):
            given = [("a", (1, 4)), ("b", (1, 5))]
            sampling = Sampling(max_new_tokens=4, temperature=0.7, top_p=0.9, seed=3)
            answers.generate(folder, given, [], sampling=sampling, ends=frozenset({2}))
    asked = [json.loads(line) for line in (tmp_path / "asked.jsonl").read_text().splitlines()]
    first, second = (
        [request["sampling"]["seed"] for request in job["batches"][0]] for job in asked
    )
    assert first == second
    assert len(set(first)) == 2
    assert asked[0]["batches"][0][0]["sampling"]["top_p"] == 0.9


def test_more_words_than_vllm_takes_are_refused(lettered: Spliced, tmp_path: Path) -> None:
    python = stand_in(tmp_path, [3])
    with VllmProcess(python) as process, pytest.raises(hubsplice.RecipeError, match="at most 128"):
        VllmAnswers(process, Vllm(python), "bfloat16").generate(
            lettered.folder,
            [("a", (1, 4))],
            [range(129)],
            sampling=Sampling(),
            ends=frozenset(),
        )


def test_arguments_of_an_engine_are_read_as_the_harness_reads_them() -> None:
    given = "a=1, b=0.5,c=true,d='1',e=none,f=x=y"
    assert Settings(model_args=given).options == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": "1",
        "e": None,
        "f": "x=y",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--python", sys.executable], "--python: it is vLLM's interpreter"),
        (["--model-args", "a=1"], "--tasks: missing"),
        (["--backend", "vllm", "--limit", "3"], "--tasks: missing"),
        (["--backend", "vllm", "--python", "nowhere"], "--python: nowhere can't be run"),
        (["--backend", "vllm", "--python", sys.executable], "has no vLLM"),
    ],
)
def test_wrong_arguments(
    lettered: Spliced, command: Command, tmp_path: Path, options: list[str], message: str
) -> None:
    given = ["--base", lettered.base, "--answers", tmp_path / "a.jsonl", *options]
    code, _, err = command("evaluate", lettered.folder, *given)
    assert code != 0
    assert message in err
