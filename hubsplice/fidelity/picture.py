"""Response curves and divergences as a picture for the card: SVG, which the Hub shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hubsplice.errors import first_line
from hubsplice.fidelity.format import significant
from hubsplice.fidelity.report import CurvePrecision, FidelityReport, ResponseCurve, write_report
from hubsplice.templates import load_template

PICTURE = "fidelity.svg"

MOST_PANELS = 12
"""A picture of more curves would be too large for a card."""

_TEMPLATE = "responses.svg.j2"
_COLUMNS, _WIDTH, _HEIGHT = 3, 190, 120
_LEFT, _TOP, _RIGHT, _BELOW = 56, 62, 18, 52
_LONGEST_LABEL = 30
_BAR_STEP, _BAR_WIDTH = 20, 430


class PictureError(Exception):
    """The curves of a report could not be drawn."""


@dataclass(frozen=True)
class _Panel:
    """One curve, as the paths of the template; numbers are pixels."""

    x: int
    y: int
    width: int
    height: int
    label: str
    zero: str | None
    exact: str
    layer: str
    layer_band: str
    hook_band: str
    top: str
    bottom: str
    left: str
    right: str


@dataclass(frozen=True)
class _Bar:
    """One divergence; numbers are pixels."""

    y: int
    width: str
    label: str
    value: str
    colour: str


@dataclass(frozen=True)
class _Picture:
    """What the template shows."""

    title: str
    dtype: str
    panels: tuple[_Panel, ...]
    bars: tuple[_Bar, ...]

    @property
    def width(self) -> int:
        # The legend alone takes the width of three panels.
        return _COLUMNS * (_LEFT + _WIDTH) + _RIGHT

    @property
    def bars_top(self) -> int:
        return max(panel.y + panel.height for panel in self.panels) + 58

    @property
    def height(self) -> int:
        return self.bars_top + _BAR_STEP * len(self.bars) + 8


def description(report: FidelityReport) -> str:
    """What the picture shows, in one sentence, for those who can't see it."""
    shown = min(len(report.curves), MOST_PANELS)
    served = report.precisions[0]
    worst = max((edit.curve.deviation for edit in served.edits if edit.curve), default=0.0)
    what = "the edit" if len(report.curves) == 1 else f"{shown} of {len(report.curves)} edits"
    if shown == len(report.curves) > 1:
        what = f"{shown} edits"
    return (
        f"Response curves of {what}: what the inserted layer writes against the pre-activation p, "
        f"beside the exact edit, in {served.dtype}; the largest deviation of all is {worst:.1%}. "
        f"Below them the splice error of the whole model, {significant(served.splice_error.mean)} "
        f"nats a token"
        + (
            f", beside the noise floor, {significant(served.noise_floor.mean)}"
            if served.noise_floor
            else ""
        )
    )


def picture(report: FidelityReport) -> str | None:
    """The curves at the serving precision, as SVG; None where the report has none.

    The same report gives the same text.

    Raises:
        PictureError: the curves can't be drawn.
    """
    if not report.curves:
        return None
    try:
        return _drawn(report)
    except Exception as error:
        raise PictureError(f"{type(error).__name__}: {first_line(error)}") from error


def _drawn(report: FidelityReport) -> str:
    dtype = report.precisions[0].dtype
    panels = tuple(
        _panel(number, curve, next(p for p in curve.precisions if p.dtype == dtype))
        for number, curve in enumerate(report.curves[:MOST_PANELS])
    )
    shown = _Picture(description(report), dtype, panels, _bars(report))
    return load_template(_TEMPLATE).render(picture=shown)


def write_report_and_picture(report: FidelityReport, folder: Path) -> FidelityReport:
    """Write `fidelity.json` into a folder, and `fidelity.svg` if the report has curves.

    A picture that can't be drawn loses nothing else: there is none, and the report warns of it.

    Returns:
        The report that was written.

    Raises:
        OSError: a file can't be written.
    """
    try:
        text = picture(report)
    except PictureError as error:
        lost = f"{PICTURE} is missing: the response curves could not be drawn ({error})"
        report, text = report.model_copy(update={"warnings": (*report.warnings, lost)}), None
    write_report(report, folder)
    if text is not None:
        (folder / PICTURE).write_text(text, encoding="utf-8", newline="\n")
    return report


def _bars(report: FidelityReport) -> tuple[_Bar, ...]:
    """What the edit does, what the precision costs, and what the splice does, on one scale."""
    served = report.precisions[0]
    floor = served.noise_floor
    values = [
        ("edit effect", report.edit_effect.mean, "#90a4ae"),
        *([] if floor is None else [("noise floor", floor.mean, "#546e7a")]),
        ("splice error", served.splice_error.mean, "#e65100"),
    ]
    positive = [value for _, value, _ in values if value > 0]
    low = 10.0 ** math.floor(math.log10(min(positive)) - 0.5) if positive else 1.0
    widest = max((math.log10(value / low) for value in positive), default=1.0)
    return tuple(
        _Bar(
            y=_BAR_STEP * index,
            width=f"{_BAR_WIDTH * math.log10(value / low) / widest:.1f}" if value > 0 else "0",
            label=label,
            value=significant(value),
            colour=colour,
        )
        for index, (label, value, colour) in enumerate(values)
    )


def _panel(number: int, curve: ResponseCurve, found: CurvePrecision) -> _Panel:
    p, layer, hook = curve.p, found.layer, found.hook
    shown = (*curve.exact, *layer.low, *layer.high)
    bottom, top = min(shown), max(shown)
    margin = 0.04 * (top - bottom) or 1.0
    bottom, top = bottom - margin, top + margin

    def down(value: float) -> float:
        return _HEIGHT * (top - value) / (top - bottom)

    def points(values: Sequence[float]) -> list[str]:
        across = (_WIDTH * (at - p[0]) / (p[-1] - p[0]) for at in p)
        # The hook's band may be wider than what is shown.
        kept = (min(max(down(value), 0.0), float(_HEIGHT)) for value in values)
        return [f"{x:.1f} {y:.1f}" for x, y in zip(across, kept, strict=True)]

    def band(low: Sequence[float], high: Sequence[float]) -> str:
        return _path([*points(low), *reversed(points(high))]) + "z"

    row, column = divmod(number, _COLUMNS)
    return _Panel(
        x=_LEFT + column * (_LEFT + _WIDTH),
        y=_TOP + row * (_HEIGHT + _BELOW),
        width=_WIDTH,
        height=_HEIGHT,
        label=readable(curve.label, _LONGEST_LABEL),
        zero=f"{down(0.0):.1f}" if bottom < 0 < top else None,
        exact=_path(points(curve.exact)),
        layer=_path(points(layer.median)),
        layer_band=band(layer.low, layer.high),
        hook_band=band(hook.low, hook.high),
        top=significant(top),
        bottom=significant(bottom),
        left=significant(p[0]),
        right=significant(p[-1]),
    )


def _path(points: Iterable[str]) -> str:
    return "M" + "L".join(points)


def readable(label: str, longest: int) -> str:
    """A label in one line, without characters that XML has not or that can't be seen."""
    text = " ".join("".join(c if c.isprintable() else " " for c in label).split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
