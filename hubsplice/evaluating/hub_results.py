"""An evaluation in the Hub's two forms: a card's `model-index`, and files in `.eval_results/`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from hubsplice.evaluating.results import HUB_RESULTS, Evaluation, TaskRecord
from hubsplice.fidelity.format import significant
from hubsplice.visible import visible

_TASK = "text-generation"

_ELSEWHERE = "unknown"
"""What the Hub is told of data that is not there."""

_METRICS = {"acc": "accuracy"}
"""The Hub's names of the harness's metrics, where they have another one."""


def model_index(found: Evaluation) -> list[EvalResult]:
    """The edited model's figures, as the front matter of a card has them."""
    return [*_answers(found), *_neutral(found), *_tasks(found)]


def hub_files(found: Evaluation) -> Mapping[str, str]:
    """The edited model's results of tasks whose data is at the Hub: a file for each, by name.

    A task of which only a part was asked is no result of a benchmark, and has none.
    """
    files: dict[str, str] = {}
    for task in found.tasks:
        if task.dataset is None or task.limit is not None:
            continue
        name = re.sub(r"[^A-Za-z0-9._-]", "-", task.task)
        shots = "" if task.num_fewshot is None else f"-{task.num_fewshot}-shot"
        chat = "-chat" if task.chat else ""
        entries = eval_result_entries_to_yaml([_entry(task, found.dtype)])
        files[f"{HUB_RESULTS}/{name}{shots}{chat}-{task.backend}.yaml"] = yaml.safe_dump(
            entries, sort_keys=False, allow_unicode=True
        )
    return files


def _entry(task: TaskRecord, dtype: str) -> EvalResultEntry:
    first = task.figures[0]
    return EvalResultEntry(
        dataset_id=task.dataset or "",
        # Where a benchmark has one task, it goes by this name.
        task_id=task.dataset_config or "default",
        value=first.edited,
        date=task.date,
        notes=visible(
            f"lm-evaluation-harness {task.harness}, {task.task}, {first.metric} ({first.filter}), "
            f"{dtype}; the base has {significant(first.base)}"
        ),
    )


def _answers(found: Evaluation) -> Iterator[EvalResult]:
    if found.answers is None:
        return
    for score in found.answers.scores:
        if score.edited is not None:
            yield EvalResult(
                task_type=_TASK,
                task_name="Answers to prompts",
                dataset_type=_ELSEWHERE,
                dataset_config="prompts",
                dataset_name=f"{found.answers.prompts} prompts, {found.answers.chosen}",
                metric_type="score",
                metric_name=visible(score.name),
                metric_value=score.edited.value,
            )


def _neutral(found: Evaluation) -> Iterator[EvalResult]:
    if found.neutral is None:
        return
    figures = (
        ("perplexity", "Perplexity", found.neutral.edited_perplexity),
        ("kl_divergence", "KL from the base, nats a token", found.neutral.divergence),
    )
    for kind, name, figure in figures:
        yield EvalResult(
            task_type=_TASK,
            task_name="Neutral text",
            dataset_type=_ELSEWHERE,
            dataset_config="neutral text",
            dataset_name=f"{found.neutral.tokens} tokens of {visible(found.neutral.dataset)} text",
            metric_type=kind,
            metric_name=name,
            metric_value=figure.value,
        )


def _tasks(found: Evaluation) -> Iterator[EvalResult]:
    for task in found.tasks:
        part = "" if task.limit is None else f", the first {task.limit} questions"
        for figure in task.figures:
            read_by = "" if figure.filter == "none" else f" ({figure.filter})"
            yield EvalResult(
                task_type=_TASK,
                task_name=visible(f"lm-evaluation-harness: {task.task}{part}"),
                dataset_type=task.dataset or _ELSEWHERE,
                # The Hub shows results of one configuration as one; a part is another.
                dataset_config=f"{task.dataset_config or task.task}{part}",
                dataset_name=visible(f"{task.dataset or task.task}{part}"),
                dataset_split=task.split,
                metric_type=_METRICS.get(figure.metric, figure.metric),
                metric_name=f"{figure.metric}{read_by}",
                metric_value=figure.edited,
                metric_args=None
                if task.num_fewshot is None
                else {"num_few_shot": task.num_fewshot},
            )
