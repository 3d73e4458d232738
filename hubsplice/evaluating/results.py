"""`evaluation.json`: base and edited model side by side, as pydantic models."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from hubsplice.checkpoint.companions import CONFIG, is_companion
from hubsplice.checkpoint.manifest import Manifest, Record
from hubsplice.checkpoint.record_file import read_record
from hubsplice.explore.intervals import Mean
from hubsplice.files.digest import Sha256
from hubsplice.files.plain import exists
from hubsplice.rendering.content import Line, Part, Tone
from hubsplice.rendering.rendered import Rendered

EVALUATION = "evaluation.json"

HUB_RESULTS = ".eval_results"
"""The folder in which the Hub looks for results of benchmarks."""

_Z = 1.959964
_HUB_RESULT = re.compile(re.escape(HUB_RESULTS) + r"/[\w.-]+\.yaml", re.ASCII)


def is_evaluation(name: str) -> bool:
    """Whether a file of a checkpoint, by its relative name, is of its evaluation."""
    return name == EVALUATION or _HUB_RESULT.fullmatch(name) is not None


class Estimate(Record):
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float

    @staticmethod
    def of(found: Mean | None) -> Estimate | None:
        """The same of a mean over prompts or sequences."""
        return (
            None if found is None else Estimate(value=found.value, low=found.low, high=found.high)
        )


class Compared(Record):
    """One figure of both models."""

    name: str = Field(min_length=1, description="The score, as `--score` names it.")
    base: Estimate | None = Field(description="Null where no answer counts.")
    edited: Estimate | None = Field(description="Null where no answer counts.")


class AnswersRecord(Record):
    """Answers of both models to the same prompts, with the same random numbers."""

    prompts: PositiveInt = Field(description="How many there are.")
    prompts_sha256: Sha256 = Field(description="Of the prompts, as JSON.")
    asked: tuple[str, ...] = Field(
        (), description="The prompts themselves, in order; empty where an early version wrote it."
    )
    chosen: Literal["by the author", "built in"]
    engine: str = Field("transformers", description="What answered, vLLM with its version.")
    form: Literal["chat", "text"] = Field(
        description="Whether they went through the chat template."
    )
    max_new_tokens: PositiveInt
    temperature: float = Field(ge=0)
    top_p: float
    seed: NonNegativeInt
    scores: tuple[Compared, ...] = Field(description="The first is the target.")
    distinct: Compared = Field(
        description="The share of word triples of an answer that are not repeated in it."
    )
    length: Compared = Field(description="Words of an answer.")


class NeutralRecord(Record):
    """Text that has nothing to do with the edit."""

    dataset: str
    token_ids_sha256: Sha256
    tokens: PositiveInt
    sequences: PositiveInt
    divergence: Estimate = Field(description="KL(edited ‖ base), in nats a token.")
    base_perplexity: Estimate
    edited_perplexity: Estimate


class TaskFigure(Record):
    """One figure of a task, of both models."""

    metric: str = Field(min_length=1)
    filter: str = Field(description="How answers were read; `none` for no filter.")
    higher_is_better: bool | None
    base: float
    base_stderr: float | None = Field(ge=0, description="The harness's own standard error.")
    edited: float
    edited_stderr: float | None = Field(ge=0)

    def estimate(self, side: Literal["base", "edited"]) -> Estimate:
        """A side with an interval of 1.96 standard errors; without one it is the value alone."""
        value: float = getattr(self, side)
        error: float = getattr(self, f"{side}_stderr") or 0.0
        return Estimate(value=value, low=value - _Z * error, high=value + _Z * error)


class TaskRecord(Record):
    """A task of lm-evaluation-harness, run on both models with the same settings."""

    task: str = Field(min_length=1)
    version: str | None
    harness: str = Field(description="The version of lm_eval.")
    backend: Literal["hf", "vllm"]
    engine: str | None = Field(None, description="What ran the models; null where it is not known.")
    model_args: str = Field(description="More arguments of the backend.")
    num_fewshot: int | None = Field(description="Null for a group of tasks.")
    limit: int | None = Field(description="Of the questions that were asked; null for all.")
    chat: bool = Field(description="Whether the chat template was applied.")
    questions: int | None = Field(description="How many were asked; null for a group of tasks.")
    dataset: str | None = Field(description="At the Hub; null for local files and groups.")
    dataset_config: str | None
    split: str | None
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="When the edited model was run.")
    figures: tuple[TaskFigure, ...] = Field(min_length=1)


class Evaluation(Rendered, Record):
    """Base and edited model side by side: the author's own measurement.

    Attributes:
        model: which weights it is of.
        dtype: the precision that both models ran in.
        device: `cpu` or `cuda`.
        answers: scores of answers; None where nothing was asked.
        neutral: side effects on neutral text; None where they were not measured.
        tasks: of lm-evaluation-harness.
        sweep: what a sweep found when the strength was chosen, on the exact hook, a line for each
            strength.
    """

    schema_version: Literal[1] = 1
    model: Sha256 = Field(description="Of the checkpoint's weights, configuration and tokenizer.")
    dtype: str
    device: str
    answers: AnswersRecord | None = None
    neutral: NeutralRecord | None = None
    tasks: tuple[TaskRecord, ...] = ()
    sweep: tuple[str, ...] = ()

    def content(self) -> Iterable[Part]:
        """Two columns for each part, and how it was measured."""
        from hubsplice.evaluating.tables import evaluation_tables

        for shown in evaluation_tables(self):
            yield shown.table
            yield Line(shown.how, Tone.FAINT)
        for line in self.sweep:
            yield Line(line)


def recorded_prompts(path: Path) -> tuple[str, ...]:
    """What an earlier evaluation asked, from its file.

    Raises:
        CheckpointError: the file can't be read, or is none of an evaluation.
    """
    answers = read_record(path, Evaluation).answers
    return () if answers is None else answers.asked


def model_digest(manifest: Manifest) -> str:
    """What a checkpoint's answers depend on, as one digest: weights, configuration, tokenizer."""
    listed = [
        (name, digest.sha256)
        for name, digest in sorted(manifest.files.items())
        if name.endswith(".safetensors") or name == CONFIG or is_companion(name)
    ]
    return digest_of(listed)


def base_digest(manifest: Manifest) -> str:
    """The same of its base."""
    return digest_of([(name, d.sha256) for name, d in sorted(manifest.base.files.items())])


def read_evaluation(folder: Path) -> Evaluation | None:
    """A checkpoint's evaluation; None where there is none.

    Raises:
        CheckpointError: the file can't be read, or is none of an evaluation.
    """
    path = folder / EVALUATION
    return read_record(path, Evaluation) if exists(path) else None


def merged(previous: Evaluation | None, found: Evaluation) -> Evaluation:
    """What was found, and of an earlier evaluation of the same model what was not asked again."""
    if previous is None or (previous.model, previous.dtype) != (found.model, found.dtype):
        return found
    again = {_asked(task) for task in found.tasks}
    return found.model_copy(
        update={
            "answers": found.answers or previous.answers,
            "neutral": found.neutral or previous.neutral,
            "tasks": (*(t for t in previous.tasks if _asked(t) not in again), *found.tasks),
            "sweep": found.sweep or previous.sweep,
        }
    )


def digest_of(content: object) -> str:
    """The SHA-256 of some plain data."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _asked(task: TaskRecord) -> tuple[object, ...]:
    """What tells two runs of a task apart."""
    return task.task, task.backend, task.model_args, task.num_fewshot, task.limit, task.chat
