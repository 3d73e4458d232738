"""An evaluation as tables of two columns, which the terminal and the card share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hubsplice.evaluating.results import (
    AnswersRecord,
    Compared,
    Estimate,
    Evaluation,
    NeutralRecord,
    TaskRecord,
)
from hubsplice.fidelity.format import MISSING, count, interval, significant
from hubsplice.fidelity.report import Interval
from hubsplice.rendering.content import Table


@dataclass(frozen=True)
class Shown:
    """One part of an evaluation.

    Attributes:
        table: figures of base and edited model.
        how: how they were measured, in a sentence or two.
    """

    table: Table
    how: str


def evaluation_tables(found: Evaluation) -> Iterator[Shown]:
    """What the edit is for, what else it does, and the harness's tasks."""
    if found.answers is not None:
        yield _answers(found.answers, found.dtype)
    if found.neutral is not None:
        yield _neutral(found.neutral, found.dtype)
    if found.tasks:
        yield _tasks(found.tasks, found.dtype)


def _answers(found: AnswersRecord, dtype: str) -> Shown:
    rows = [
        *(_row(f"score {score.name}", score) for score in found.scores),
        _row("words of an answer", found.length),
        _row("word triples that are not repeated", found.distinct),
    ]
    form = "through the chat template" if found.form == "chat" else "as plain text to go on with"
    drawn = (
        "greedily"
        if found.temperature == 0
        else f"at temperature {found.temperature:g}, top-p {found.top_p:g}, seed {found.seed}"
    )
    return Shown(
        Table(("answers", "base", "this model"), tuple(rows)),
        f"{count(found.prompts)} prompts, {found.chosen}, {form}, {drawn}, in {dtype} on "
        f"{found.engine}, for at most {found.max_new_tokens} tokens. In brackets: 95% intervals, "
        "by prompt.",
    )


def _neutral(found: NeutralRecord, dtype: str) -> Shown:
    rows = (
        ("perplexity", _estimate(found.base_perplexity), _estimate(found.edited_perplexity)),
        ("KL from the base, nats a token", "0", _estimate(found.divergence)),
    )
    return Shown(
        Table(("neutral text", "base", "this model"), rows),
        f"{count(found.tokens)} tokens of {found.dataset} text in {count(found.sequences)} "
        f"sequences, in {dtype}. In brackets: 95% intervals, by sequence.",
    )


def _tasks(tasks: tuple[TaskRecord, ...], dtype: str) -> Shown:
    rows = tuple(
        (
            _settings(task),
            figure.metric if figure.filter == "none" else f"{figure.metric}, {figure.filter}",
            _estimate(figure.estimate("base")),
            _estimate(figure.estimate("edited")),
        )
        for task in tasks
        for figure in task.figures
    )
    engines = {"hf": "transformers", "vllm": "vLLM"}
    ran = ", ".join(
        sorted({f"{task.harness} on {task.engine or engines[task.backend]}" for task in tasks})
    )
    return Shown(
        Table(("task", "figure", "base", "this model"), rows, text_columns=2),
        f"lm-evaluation-harness {ran}, in {dtype}, both models with the same settings. In "
        "brackets: 1.96 of the harness's standard errors to either side.",
    )


def _settings(task: TaskRecord) -> str:
    said = [
        f"{task.num_fewshot}-shot" if task.num_fewshot is not None else "",
        f"the first {count(task.limit)} questions" if task.limit is not None else "",
        f"{count(task.questions)} questions" if task.limit is None and task.questions else "",
        "chat template" if task.chat else "",
        task.model_args,
    ]
    return f"{task.task} ({', '.join(filter(None, said))})"


def _row(name: str, figure: Compared) -> tuple[str, str, str]:
    return name, _estimate(figure.base), _estimate(figure.edited)


def _estimate(found: Estimate | None) -> str:
    if found is None:
        return MISSING
    if found.low == found.high:
        return significant(found.value)
    return interval(Interval(value=found.value, low=found.low, high=found.high))
