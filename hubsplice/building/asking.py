"""Before and after: the answers for the card, which are worth having, and no build."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hubsplice.fidelity.answering import Asked, Asker, acting_at
from hubsplice.fidelity.answers import Answers
from hubsplice.fidelity.measure import Subject
from hubsplice.fidelity.optional import Missing
from hubsplice.fidelity.report import FidelityReport
from hubsplice.recipe.models import Prompt, Recipe
from hubsplice.streams.acting import ActingText, EditKey
from hubsplice.streams.model import Model
from hubsplice.terminal import Progress
from hubsplice.text.prompts import prompt_text, prompt_tokens
from hubsplice.text.questions import QUESTIONS

_READ_SEQUENCES = 8
_EXAMPLE_TOKENS = 24
_FROM_RECIPE = 6


def with_answers(
    report: FidelityReport,
    recipe: Recipe,
    subject: Subject,
    text: ActingText,
    tokenizer: Any,
    progress: Progress,
) -> FidelityReport:
    """The report with what base and spliced checkpoint answer; what fails becomes a warning.

    Args:
        report: of the subject.
        recipe: may name prompts.
        subject: what was measured.
        text: what it was measured on.
        tokenizer: the base's.
        progress: told of every step.
    """
    missing = Missing()
    answers = missing.attempt(
        "the answers for the card", lambda: _answers(recipe, subject, text, tokenizer, progress)
    )
    warnings = tuple(dict.fromkeys((*report.warnings, *missing.reasons)))
    return report.model_copy(update={"answers": answers, "warnings": warnings})


def _answers(
    recipe: Recipe, subject: Subject, text: ActingText, tokenizer: Any, progress: Progress
) -> Answers | None:
    given = recipe.card.prompts
    if given == ():
        return None
    asker = Asker(subject, tokenizer)

    def examples(model: Model, edits: Sequence[EditKey]) -> list[Asked]:
        return list(_examples(model, subject, text, tokenizer, edits))

    return asker.answers(
        None if given is None else _asked("card.prompts", given, tokenizer),
        _asked("prompts", _candidates(recipe), tokenizer),
        examples,
        progress,
    )


def _candidates(recipe: Recipe) -> list[Prompt]:
    """The questions of the recipe's own prompts, then general ones."""
    own = [p for p in recipe.prompts if p.user is not None or p.chat is not None]
    return [*own[:_FROM_RECIPE], *(Prompt(user=question) for question in QUESTIONS)]


def _asked(field: str, prompts: Sequence[Prompt], tokenizer: Any) -> list[Asked]:
    found = []
    for i, prompt in enumerate(prompts):
        is_chat, ids = prompt_tokens(f"{field}[{i}]", prompt, tokenizer)
        found.append(Asked(prompt_text(prompt), tuple(ids), "chat" if is_chat else "text"))
    return found


def _examples(
    model: Model, subject: Subject, text: ActingText, tokenizer: Any, edits: Sequence[EditKey]
) -> Iterator[Asked]:
    """Text up to where an edit acts, for edits that act on no candidate."""
    for edit in edits:
        # Those that were kept for its sake come last.
        counted = text.counts_for(edit).nonzero().flatten().tolist()[-_READ_SEQUENCES:]
        for index in counted:
            ids = text.sequences.ids[index][: int(text.sequences.lengths[index])]
            where = acting_at(model, subject.intervention, ids)[edit][1:].nonzero().flatten()
            if not len(where):
                continue
            end = int(where[len(where) // 2]) + 2
            shown = tokenizer.decode(
                ids[max(0, end - _EXAMPLE_TOKENS) : end], skip_special_tokens=True
            ).strip()
            if len(shown) > 1:
                yield from _asked("text", [Prompt(text=shown)], tokenizer)
                break
