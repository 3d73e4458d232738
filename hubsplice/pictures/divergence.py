"""The divergence against the noise floor: is a model as near to the hook as its precision lets?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hubsplice.fidelity.format import count, significant
from hubsplice.fidelity.report import FidelityReport
from hubsplice.pictures.canvas import (
    BASE,
    FAINT,
    INK,
    LINE,
    SPLICE,
    WIDTH,
    Canvas,
    readable,
)

_MOST_ROWS, _LONGEST = 13, 44
_LEFT, _RIGHT, _TOP, _ROW = 262, 38, 82, 38
_DECADES = 12


@dataclass(frozen=True)
class _Row:
    """Means in nats a token; the noise floor is None in float32."""

    label: str
    tokens: int
    effect: float
    floor: float | None
    error: float

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(v for v in (self.effect, self.floor, self.error) if v is not None)


def divergence_description(report: FidelityReport) -> str:
    """What the picture shows, for those who can't see it."""
    served = report.precisions[0]
    floor = served.noise_floor
    beside = "" if floor is None else f", beside the noise floor, {significant(floor.mean)}"
    return (
        f"How far the model is from the exact hook, in {served.dtype}: over all scored tokens the "
        f"splice error is {significant(served.splice_error.mean)} nats a token{beside}; the edit "
        f"itself changes {significant(report.edit_effect.mean)}"
    )


def divergence_picture(report: FidelityReport) -> bytes:
    """The picture, at the serving precision: all scored tokens, then each edit where it acts."""
    rows = list(_rows(report))
    shown, more = rows[:_MOST_ROWS], len(rows) - _MOST_ROWS
    low, high = _decades(shown)
    bottom = _TOP + len(shown) * _ROW
    canvas = Canvas(bottom + 44 + (18 if more > 0 else 0))
    _legend(canvas, report.precisions[0].dtype, floor=any(r.floor is not None for r in shown))

    def across(value: float) -> float:
        power = math.log10(value) if value > 0 else low
        share = (min(max(power, low), high) - low) / (high - low)
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * share

    for power in range(low, high + 1):
        x = across(10.0**power)
        canvas.line([(x, _TOP), (x, bottom)], LINE)
        canvas.text(x, bottom + 14, f"{10.0**power:g}", size=10, colour=FAINT, align="center")
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    canvas.text(middle, bottom + 32, "nats a token", size=10, colour=FAINT, align="center")
    for index, row in enumerate(shown):
        y = _TOP + index * _ROW + 20
        canvas.text(14, y - 2, readable(row.label, _LONGEST), size=10.5, bold=index == 0)
        where = "tokens" if index == 0 else "tokens, where it acts"
        canvas.text(14, y + 11, f"{count(row.tokens)} {where}", size=9.5, colour=FAINT)
        ends = [across(value) for value in row.values]
        canvas.line([(min(ends), y), (max(ends), y)], LINE, 2)
        _effect(canvas, across(row.effect), y)
        _error(canvas, across(row.error), y)
        if row.floor is not None:
            _floor(canvas, across(row.floor), y)
    if more > 0:
        canvas.text(14, bottom + 50, f"And {more} more edits, in fidelity.json.", colour=FAINT)
    return canvas.png()


def _effect(canvas: Canvas, x: float, y: float) -> None:
    canvas.box(x - 5, y - 5, 10, 10, fill=BASE)


def _floor(canvas: Canvas, x: float, y: float) -> None:
    canvas.line([(x, y - 10), (x, y + 10)], INK, 2)


def _error(canvas: Canvas, x: float, y: float) -> None:
    canvas.area([(x - 7, y), (x, y - 7), (x + 7, y), (x, y + 7)], SPLICE)


def _legend(canvas: Canvas, dtype: str, *, floor: bool) -> None:
    canvas.text(14, 22, f"How far from the exact hook, in {dtype}", size=13, bold=True)
    entries = [(_error, "splice error: this model", 186)]
    if floor:
        entries.append((_floor, "noise floor: what the precision costs by itself", 312))
    entries.append((_effect, "edit effect: the base", 0))
    x = 22.0
    for mark, words, width in entries:
        mark(canvas, x, 45)
        canvas.text(x + 14, 49, words)
        x += width


def _rows(report: FidelityReport) -> Iterator[_Row]:
    served = report.precisions[0]
    floor = served.noise_floor
    yield _Row(
        "all scored tokens",
        report.scored_tokens,
        report.edit_effect.mean,
        None if floor is None else floor.mean,
        served.splice_error.mean,
    )
    for edit in served.edits:
        acted = edit.acted
        if acted is not None:
            yield _Row(
                edit.label,
                acted.tokens,
                acted.edit_effect,
                acted.noise_floor,
                acted.splice_error,
            )


def _decades(rows: list[_Row]) -> tuple[int, int]:
    """The powers of ten between which all values lie; what is smaller stands at the left."""
    positive = [value for row in rows for value in row.values if value > 0] or [1.0]
    high = math.ceil(math.log10(max(positive)) + 1e-9)
    low = math.floor(math.log10(min(positive)))
    return max(min(low, high - 1), high - _DECADES), high
