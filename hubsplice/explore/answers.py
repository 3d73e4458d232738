"""Answers before and after an edit, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hubsplice.explore.words import marked
from hubsplice.rendering.content import Line, Part, Table, Tone
from hubsplice.rendering.rendered import Rendered

BEFORE = "before"
_NARROWEST = 24
_USUAL_WIDTH = 100


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        name: `before`, `after`, or the strength.
        text: what it says.
        tokens: how long it is.
        ended: whether the model ended it, and no limit did.
    """

    name: str
    text: str
    tokens: int
    ended: bool


@dataclass(frozen=True)
class Compared:
    """One prompt and its answers, the base's first."""

    prompt: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, repr=False)
class Answers(Rendered):
    """Answers of the base and of its edits.

    Attributes:
        prompts: each with its answers.
        warnings: what may not be meant in the recipe, and what its hook does not reproduce.
    """

    prompts: tuple[Compared, ...]
    warnings: tuple[str, ...] = ()

    def content(self) -> Iterable[Part]:
        """The answers side by side; words that are not the base's stand in angle marks."""
        for warning in self.warnings:
            yield Line(f"warning: {warning}", Tone.CAUTION)
        yield from self.findings(_USUAL_WIDTH)

    def findings(self, width: int) -> Iterable[Part]:
        """The answers as they fit into some columns of text, without the warnings."""
        for compared in self.prompts:
            yield side_by_side(compared, width)


def side_by_side(compared: Compared, width: int) -> Table:
    """A column for each answer; a row for each where columns would be too narrow."""
    first, *others = compared.answers
    texts = [first.text, *(marked(first.text, answer.text) for answer in others)]
    names = [answer.name for answer in compared.answers]
    if len(names) * _NARROWEST <= width:
        return Table.of_text(tuple(names), (tuple(texts),), compared.prompt)
    rows = tuple(zip(names, texts, strict=True))
    return Table.of_text(("strength", "answer"), rows, compared.prompt)
