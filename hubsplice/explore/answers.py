"""Answers before and after an edit, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
class Holding:
    """On how many tokens of a prompt and of one answer the condition of an edit held.

    Attributes:
        label: what reports call the edit.
        answer: the answer's name.
        in_prompt: tokens of what was asked on which it held.
        prompt_tokens: all of them, sinks left out.
        in_answer: tokens of the answer on which it held.
        answer_tokens: all of them.
    """

    label: str
    answer: str
    in_prompt: int
    prompt_tokens: int
    in_answer: int
    answer_tokens: int

    def __str__(self) -> str:
        return (
            f"{self.answer}: {self.label}: the condition held on {self.in_prompt} of "
            f"{self.prompt_tokens} tokens of the prompt and {self.in_answer} of "
            f"{self.answer_tokens} of the answer"
        )


@dataclass(frozen=True)
class Compared:
    """One prompt and its answers, the base's first.

    Attributes:
        prompt: the prompt.
        answers: as they are so far, or whole.
        held: where conditions of the edits held, once the answers are whole.
    """

    prompt: str
    answers: tuple[Answer, ...]
    held: tuple[Holding, ...] = ()


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
            yield from compared_content(compared, width)


def compared_content(compared: Compared, width: int) -> Iterator[Part]:
    """The answers side by side, and where conditions held."""
    yield side_by_side(compared, width)
    yield from (Line(str(holding)) for holding in compared.held)


def never_held(prompts: Sequence[Compared]) -> tuple[str, ...]:
    """A warning for each condition that held on no token of any prompt or answer."""
    found: dict[str, int] = {}
    for holding in (holding for compared in prompts for holding in compared.held):
        on = holding.in_prompt + holding.in_answer
        found[holding.label] = found.get(holding.label, 0) + on
    return tuple(
        f"{label}: the condition held on no token of any prompt or answer, so that the edit did "
        "nothing; ask something on which it holds, or lower its threshold"
        for label, on in found.items()
        if not on
    )


def side_by_side(compared: Compared, width: int) -> Table:
    """A column for each answer; a row for each where columns would be too narrow."""
    first, *others = compared.answers
    texts = [first.text, *(marked(first.text, answer.text) for answer in others)]
    names = [answer.name for answer in compared.answers]
    if len(names) * _NARROWEST <= width:
        return Table.of_text(tuple(names), (tuple(texts),), compared.prompt)
    rows = tuple(zip(names, texts, strict=True))
    return Table.of_text(("strength", "answer"), rows, compared.prompt)
