"""The response curves: what each inserted layer writes as p sweeps, on what the hook writes."""

from __future__ import annotations

from collections.abc import Sequence

from hubsplice.fidelity.format import percent, significant
from hubsplice.fidelity.report import CurvePrecision, FidelityReport, ResponseCurve
from hubsplice.pictures.canvas import (
    FAINT,
    INK,
    LINE,
    ROUNDED,
    SPLICE,
    SPREAD,
    Canvas,
    Point,
    readable,
)

MOST_PANELS = 12
"""A picture of more curves would be too large for a card."""

_COLUMNS, _WIDTH, _HEIGHT = 3, 186, 120
_LEFT, _TOP, _BELOW = 58, 76, 54
_LONGEST_LABEL = 29


def responses_description(report: FidelityReport) -> str:
    """What the picture shows, for those who can't see it."""
    served = report.precisions[0]
    worst = max((edit.curve.deviation for edit in served.edits if edit.curve), default=0.0)
    total, shown = len(report.curves), min(len(report.curves), MOST_PANELS)
    if total == 1:
        what = "the edit"
    else:
        what = f"{total} edits" if shown == total else f"{shown} of {total} edits"
    return (
        f"Response curves of {what}: what the inserted layer writes against the pre-activation p, "
        f"on the exact edit, in {served.dtype}; the largest deviation of all is {percent(worst)}"
    )


def responses_picture(report: FidelityReport) -> bytes:
    """The picture, of the curves at the serving precision."""
    dtype = report.precisions[0].dtype
    shown = report.curves[:MOST_PANELS]
    rows = -(-len(shown) // _COLUMNS)
    more = len(report.curves) - len(shown)
    canvas = Canvas(_TOP + rows * (_HEIGHT + _BELOW) - 8 + (18 if more else 0))
    _legend(canvas, dtype)
    for number, curve in enumerate(shown):
        row, column = divmod(number, _COLUMNS)
        x = _LEFT + column * (_LEFT + _WIDTH)
        found = next(p for p in curve.precisions if p.dtype == dtype)
        _panel(canvas, x, _TOP + row * (_HEIGHT + _BELOW), curve, found)
    if more:
        y = _TOP + rows * (_HEIGHT + _BELOW) - 8
        canvas.text(14, y, f"And {more} more edits, in fidelity.json.", colour=FAINT)
    return canvas.png()


def _legend(canvas: Canvas, dtype: str) -> None:
    canvas.text(14, 22, f"What each edit's layer writes, in {dtype}", size=13, bold=True)
    canvas.line([(14, 40), (36, 40)], INK, 1.4, dashed=True)
    canvas.text(42, 44, "exact edit")
    canvas.line([(122, 40), (144, 40)], ROUNDED, 7)
    canvas.text(150, 44, "the same, rounded: 5% to 95%")
    canvas.line([(356, 40), (378, 40)], SPREAD, 7)
    canvas.line([(356, 40), (378, 40)], SPLICE, 1.8)
    canvas.text(384, 44, "inserted layer: median, 5% to 95%")


def _panel(canvas: Canvas, x: float, y: float, curve: ResponseCurve, found: CurvePrecision) -> None:
    p, layer, hook = curve.p, found.layer, found.hook
    shown = (*curve.exact, *layer.low, *layer.high)
    bottom, top = min(shown), max(shown)
    margin = 0.04 * (top - bottom) or 1.0
    bottom, top = bottom - margin, top + margin

    def down(value: float) -> float:
        return y + _HEIGHT * (top - value) / (top - bottom)

    def points(values: Sequence[float]) -> list[Point]:
        # The hook's band may be wider than what is shown.
        return [
            (
                x + _WIDTH * (at - p[0]) / (p[-1] - p[0]),
                min(max(down(value), y), y + _HEIGHT),
            )
            for at, value in zip(p, values, strict=True)
        ]

    canvas.text(x, y - 8, readable(curve.label, _LONGEST_LABEL), bold=True)
    canvas.box(x, y, _WIDTH, _HEIGHT, edge=LINE)
    if bottom < 0 < top:
        canvas.line([(x, down(0)), (x + _WIDTH, down(0))], LINE)
    canvas.area([*points(layer.low), *reversed(points(layer.high))], SPREAD, 0.8)
    canvas.area([*points(hook.low), *reversed(points(hook.high))], ROUNDED, 0.6)
    canvas.line(points(layer.median), SPLICE, 1.8)
    canvas.line(points(curve.exact), INK, 1.2, dashed=True)
    for at, value in ((y + 9, top), (y + _HEIGHT, bottom)):
        canvas.text(x - 4, at, significant(value), size=10, colour=FAINT, align="right")
    below = y + _HEIGHT + 14
    canvas.text(x, below, significant(p[0]), size=10, colour=FAINT)
    canvas.text(x + _WIDTH / 2, below, "p", size=10, colour=FAINT, align="center")
    canvas.text(x + _WIDTH, below, significant(p[-1]), size=10, colour=FAINT, align="right")
