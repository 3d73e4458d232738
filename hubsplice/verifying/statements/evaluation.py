"""A checkpoint's evaluation: whether it is of these weights. Its figures stay a claim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.evaluating.hub_results import hub_files
from hubsplice.evaluating.results import (
    EVALUATION,
    Evaluation,
    digest_of,
    is_evaluation,
    model_digest,
)
from hubsplice.files.plain import read_plain
from hubsplice.verifying.result import Check
from hubsplice.verifying.statements.ledger import AuthorClaim, as_json

EVALUATION_CHECK = "evaluation"


def check_evaluation(
    folder: Path, manifest: Manifest, evaluation: Evaluation | None, unreadable: list[str]
) -> tuple[tuple[Check, ...], tuple[AuthorClaim, ...]]:
    """What a checkpoint says of its evaluation.

    Args:
        folder: the checkpoint.
        manifest: its own.
        evaluation: its own; None where there is none.
        unreadable: why it can't be read.

    Returns:
        A check, where the checkpoint has an evaluation, and its figures as the author's claim.
    """
    listed = sorted(filter(is_evaluation, manifest.files))
    if not listed and evaluation is None and not unreadable:
        return (), ()
    problems = [*unreadable, *_problems(folder, manifest, evaluation, listed)]
    check = Check.of(
        EVALUATION_CHECK, problems, "it is of these weights; its figures are the author's"
    )
    if evaluation is None:
        return (check,), ()
    figures = AuthorClaim(
        file=EVALUATION,
        field="everything that was evaluated",
        stated=as_json(_in_words(evaluation)),
        why="it is the author's own measurement; `hubsplice evaluate` measures again",
    )
    return (check,), (figures,)


def _problems(
    folder: Path, manifest: Manifest, evaluation: Evaluation | None, listed: list[str]
) -> Iterator[str]:
    if EVALUATION not in listed:
        yield f"{EVALUATION}: the manifest does not list it"
    if evaluation is None:
        return
    if evaluation.model != model_digest(manifest):
        yield f"{EVALUATION}: it is of other weights, another configuration or another tokenizer"
    answers = evaluation.answers
    if answers is not None and answers.asked:
        given = (len(answers.asked), digest_of(list(answers.asked)))
        if given != (answers.prompts, answers.prompts_sha256):
            yield f"{EVALUATION}: answers.asked: not the prompts that its checksum is of"
    expected = hub_files(evaluation)
    for name in sorted({*expected, *(name for name in listed if name != EVALUATION)}):
        try:
            found = read_plain(folder / name).decode(errors="replace")
        except OSError:
            found = None
        if found != expected.get(name):
            yield f"{name}: not what {EVALUATION} gives"


def _in_words(evaluation: Evaluation) -> str:
    scores = () if evaluation.answers is None else evaluation.answers.scores
    return ", ".join(
        [
            *(f"score {score.name}" for score in scores),
            *(("neutral text",) if evaluation.neutral is not None else ()),
            *(f"task {task.task}" for task in evaluation.tasks),
            *(("a sweep",) if evaluation.sweep else ()),
        ]
    )
