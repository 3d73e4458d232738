"""A sweep as a picture: the target against the divergence, with intervals. SVG, as for cards."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hubsplice.explore.swept import Sweep
from hubsplice.pictures.canvas import readable
from hubsplice.templates import load_template

_TEMPLATE = "sweep.svg.j2"
_WIDTH, _HEIGHT, _LEFT, _TOP = 520, 300, 70, 40
_LONGEST = 60


@dataclass(frozen=True)
class _Mark:
    """One strength; numbers are pixels."""

    name: str
    x: str
    y: str
    left: str
    right: str
    low: str
    high: str
    front: bool
    chosen: bool


def picture(sweep: Sweep) -> str:
    """The picture; the same sweep gives the same text."""
    known = [(p, p.target) for p in sweep.points if p.target is not None]
    most = max((p.divergence.high for p, _ in known), default=0.0) or 1.0
    bottom = min((t.low for _, t in known), default=0.0)
    top = max((t.high for _, t in known), default=1.0)
    if top <= bottom:
        top = bottom + 1.0

    def across(value: float) -> str:
        return f"{_LEFT + _WIDTH * math.sqrt(max(value, 0.0) / most):.1f}"

    def down(value: float) -> str:
        return f"{_TOP + _HEIGHT * (top - value) / (top - bottom):.1f}"

    marks = tuple(
        _Mark(
            name=readable(p.name if p.layer is None else f"{p.name}, layer {p.layer}", _LONGEST),
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
    )
    front = sorted((m for m in marks if m.front), key=lambda mark: float(mark.x))
    return load_template(_TEMPLATE).render(
        title=readable(f"{sweep.edit} ({sweep.label})", _LONGEST),
        target=readable(sweep.scorers[0], _LONGEST),
        marks=marks,
        line=" ".join(f"{m.x},{m.y}" for m in front),
        left=_LEFT,
        top=_TOP,
        width=_WIDTH,
        height=_HEIGHT,
        highest=f"{top:.3g}",
        lowest=f"{bottom:.3g}",
        most=f"{most:.3g}",
    )
