"""Figures on a card that was edited by hand, against those that the files give now.

What somebody wrote into a card stays there when the model is measured again, and so do the figures
around it. A line is hubsplice's own if it is one that the files give, but for its numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

METADATA = "metadata"
"""What stands above the card's first heading in its YAML is named so."""

_FENCE, _CODE = "---", "```"
_HEADING = re.compile(r"^#{1,6} (.+)$")
_NUMBER = re.compile(r"[-−+~]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?%?")
_DIGEST = re.compile(r"\b[0-9a-f]{12,64}\b")
_INTERVAL = re.compile(r"# ?\(#(?:–|-)#\)")
_NONE = re.compile(r"(?<=\|) *–? *(?=\|)")
_SPACE = re.compile(r"\s+")
_RULE = re.compile(r"\|[-:| ]+")

_UNTIL_MEASURED = (
    "This was not evaluated",
    "Not measured. ",
    "No run of a server with this checkpoint is on record.",
)
"""How lines begin that a card has only until something is measured."""

_VERDICTS = ("- **Fidelity**: ", "> ")
"""How the lines begin that have the verdict in words."""

_FIDELITY = "Fidelity"


@dataclass(frozen=True)
class Stale:
    """A part of a card that the files no longer give.

    Attributes:
        part: its heading, or `METADATA`.
        lines: how many lines of it.
        found: the first of them.
        given: what the files give in its place; empty where they give nothing like it.
    """

    part: str
    lines: int
    found: str
    given: str

    def __str__(self) -> str:
        more = f" (and {self.lines - 1} more)" if self.lines > 1 else ""
        now = f"the files give {self.given!r}" if self.given else "that is measured by now"
        return f"{self.part}: it says {self.found!r}{more}; {now}"


@dataclass(frozen=True)
class _Line:
    part: str
    text: str


def stale_parts(found: str, given: str) -> tuple[Stale, ...]:
    """The parts of a card whose figures are others than the files give.

    Lines that the files give nothing like are its author's, and so are those that are left out.

    Args:
        found: the card.
        given: what hubsplice writes from the files, with the same model id.
    """
    kept, new = _lines(found), _lines(given)
    left, right = _without(kept, new), _without(new, kept)
    pairs: list[tuple[_Line, str]] = []
    for alike in (_but_for_numbers, _as_row, _as_verdict):
        left, right, made = _paired(left, right, alike)
        pairs += made
    pairs += [(line, "") for line in left if line.text.startswith(_UNTIL_MEASURED)]
    parts: dict[str, list[tuple[_Line, str]]] = {}
    for line, now in pairs:
        parts.setdefault(line.part, []).append((line, now))
    return tuple(
        Stale(part, len(lines), lines[0][0].text, lines[0][1]) for part, lines in parts.items()
    )


def headings(lines: Sequence[str]) -> list[str]:
    """The heading that each line of a card stands below; code is passed over."""
    found, current, in_code = [], "before any heading", False
    for line in lines:
        if line.startswith(_CODE):
            in_code = not in_code
        elif not in_code and (match := _HEADING.match(line)):
            current = match[1]
        found.append(current)
    return found


def _lines(text: str) -> list[_Line]:
    """The lines that may hold figures: what stands in a block of code is an example."""
    lines = text.splitlines()
    below = headings(lines)
    if lines[:1] == [_FENCE] and _FENCE in lines[1:]:
        end = lines.index(_FENCE, 1)
        below[: end + 1] = [METADATA] * (end + 1)
    found, in_code = [], False
    for part, line in zip(below, map(str.strip, lines), strict=True):
        if line.startswith(_CODE):
            in_code = not in_code
        # An editor may have drawn a table anew: how wide it is says nothing.
        elif line and not in_code and not _RULE.fullmatch(line):
            found.append(_Line(part, _SPACE.sub(" ", line)))
    return found


def _without(lines: Sequence[_Line], others: Sequence[_Line]) -> list[_Line]:
    """The lines that are not among others, each as often as it is one too many."""
    there = Counter(line.text for line in others)
    found = []
    for line in lines:
        if there[line.text]:
            there[line.text] -= 1
        else:
            found.append(line)
    return found


Alike = Callable[[_Line], object]
"""What two lines have in common that stand for each other; None of a line that stands for none."""


def _paired(
    left: Sequence[_Line], right: Sequence[_Line], alike: Alike
) -> tuple[list[_Line], list[_Line], list[tuple[_Line, str]]]:
    """Lines with those that stand for them, and what is left of both sides."""
    waiting: dict[object, list[_Line]] = {}
    for line in reversed(right):
        waiting.setdefault(alike(line), []).append(line)
    waiting.pop(None, None)
    rest, pairs, taken = [], [], set()
    for line in left:
        fitting = waiting.get(alike(line))
        if fitting:
            other = fitting.pop()
            taken.add(id(other))
            pairs.append((line, other.text))
        else:
            rest.append(line)
    return rest, [line for line in right if id(line) not in taken], pairs


def _but_for_numbers(line: _Line) -> object:
    masked = _NUMBER.sub("#", _DIGEST.sub("#", line.text))
    masked = _NONE.sub(" # ", _INTERVAL.sub("#", masked))
    return None if masked == line.text else _SPACE.sub(" ", masked)


def _as_row(line: _Line) -> object:
    return (line.part, line.text.count("|")) if line.text.startswith("|") else None


def _as_verdict(line: _Line) -> object:
    for beginning in _VERDICTS:
        if line.text.startswith(beginning) and (beginning != "> " or line.part == _FIDELITY):
            return beginning
    return None
