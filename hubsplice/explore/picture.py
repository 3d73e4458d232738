"""A sweep as a picture: the target against the divergence, with intervals. SVG, as for cards."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hubsplice.explore.swept import Sweep
from hubsplice.pictures.canvas import readable
from hubsplice.templates import load_template

ACROSS = "KL from the base on neutral text, nats a token (scale of square roots)"

_TEMPLATE = "sweep.svg.j2"
_WIDTH, _HEIGHT, _LEFT, _TOP = 520, 300, 70, 40
_RIGHT, _BELOW = 90, 60
_LONGEST = 60


@dataclass(frozen=True)
class Mark:
    """One strength and its intervals; numbers are pixels."""

    name: str
    x: float
    y: float
    left: float
    right: float
    low: float
    high: float
    front: bool
    chosen: bool

    @property
    def radius(self) -> int:
        """Of its dot."""
        return 6 if self.chosen else 4

    @property
    def colour(self) -> str:
        """Of its dot."""
        return "#d9534f" if self.chosen else "#1f6fb2" if self.front else "#999999"


@dataclass(frozen=True)
class Layout:
    """Where everything stands, in pixels from the upper left corner.

    Attributes:
        title: what was swept.
        target: the first score's name.
        marks: the strengths.
        left: of the frame; so are the next three.
        top: as above.
        width: as above.
        height: as above.
        highest: what the frame's top means; so do the next two.
        lowest: as above, of its bottom.
        most: as above, of its right side.
    """

    title: str
    target: str
    marks: tuple[Mark, ...]
    left: int
    top: int
    width: int
    height: int
    highest: str
    lowest: str
    most: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole picture."""
        return self.left + self.width + _RIGHT, self.top + self.height + _BELOW

    @property
    def front(self) -> list[Mark]:
        """The marks for which no other gains more for less, from left to right."""
        return sorted((m for m in self.marks if m.front), key=lambda mark: mark.x)


def layout(sweep: Sweep) -> Layout:
    """Where everything of a sweep's picture stands."""
    known = [(p, p.target) for p in sweep.points if p.target is not None]
    most = max((p.divergence.high for p, _ in known), default=0.0) or 1.0
    bottom = min((t.low for _, t in known), default=0.0)
    top = max((t.high for _, t in known), default=1.0)
    if top <= bottom:
        top = bottom + 1.0

    def across(value: float) -> float:
        return _LEFT + _WIDTH * math.sqrt(max(value, 0.0) / most)

    def down(value: float) -> float:
        return _TOP + _HEIGHT * (top - value) / (top - bottom)

    return Layout(
        title=readable(f"{sweep.edit} ({sweep.label})", _LONGEST),
        target=readable(sweep.scorers[0], _LONGEST),
        marks=tuple(
            Mark(
                name=readable(
                    p.name if p.layer is None else f"{p.name}, layer {p.layer}", _LONGEST
                ),
                x=across(p.divergence.value),
                y=down(t.value),
                left=across(p.divergence.low),
                right=across(p.divergence.high),
                low=down(t.low),
                high=down(t.high),
                front=p.front,
                chosen=p.chosen,
            )
            for p, t in known
        ),
        left=_LEFT,
        top=_TOP,
        width=_WIDTH,
        height=_HEIGHT,
        highest=f"{top:.3g}",
        lowest=f"{bottom:.3g}",
        most=f"{most:.3g}",
    )


def svg(sweep: Sweep) -> str:
    """The picture; the same sweep gives the same text."""
    found = layout(sweep)
    return load_template(_TEMPLATE).render(layout=found, across=ACROSS)
