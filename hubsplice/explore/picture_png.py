"""The same picture of a sweep as PNG, for what shows no SVG. matplotlib draws it."""

from __future__ import annotations

import io
from typing import Any

from hubsplice.explore.picture import ACROSS, layout
from hubsplice.explore.swept import Sweep

_INK, _LINE, _FRONT = "#222222", "#999999", "#1f6fb2"
_INCH, _SHARPNESS = 96, 2
_POINTS = 72 / _INCH


def png(sweep: Sweep) -> bytes:
    """The picture, two dots to a pixel."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = layout(sweep)
    width, height = found.size
    # No setting of the user's is read.
    with style.context("default"):
        figure = Figure((width / _INCH, height / _INCH), dpi=_SHARPNESS * _INCH, facecolor="white")
        FigureCanvasAgg(figure)
        axes: Any = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()

        def line(x: list[float], y: list[float], colour: str = _LINE, kind: str = "-") -> None:
            axes.plot(x, y, kind, color=colour, linewidth=_POINTS, clip_on=False)

        def text(x: float, y: float, words: str, size: int = 12, **options: Any) -> None:
            # A dollar in a label is no formula.
            axes.text(x, y, words, size=size * _POINTS, color=_INK, parse_math=False, **options)

        left, top = found.left, found.top
        right, below = left + found.width, top + found.height
        line([left, right, right, left, left], [top, top, below, below, top])
        text(left, 22, found.title, size=14)
        text(left - 8, top + 12, found.highest, ha="right")
        text(left - 8, below, found.lowest, ha="right")
        text(left, below + 18, "0")
        text(right, below + 18, found.most, ha="right")
        text((left + right) / 2, below + 42, ACROSS, ha="center")
        text(18, (top + below) / 2, found.target, ha="center", va="center", rotation=90)
        line([m.x for m in found.front], [m.y for m in found.front], _FRONT, "--")
        for mark in found.marks:
            line([mark.left, mark.right], [mark.y, mark.y])
            line([mark.x, mark.x], [mark.low, mark.high])
        for mark in found.marks:
            size = 2 * mark.radius * _POINTS
            axes.plot(
                [mark.x], [mark.y], "o", color=mark.colour, markersize=size, markeredgewidth=0,
                clip_on=False,
            )  # fmt: skip
            text(mark.x + 8, mark.y - 6, mark.name)
        sheet = io.BytesIO()
        figure.savefig(sheet, format="png", metadata={"Software": None})
    return sheet.getvalue()
