"""Plots for the results, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.intervals import Estimate


def bars(
    path: Path, groups: Mapping[str, Mapping[str, Estimate]], *, ylabel: str, lines: Sequence[float]
) -> None:
    """Groups of bars with their intervals, and dashed lines across each group's own value."""
    figure, axes = _figure(ylabel)
    names = list(next(iter(groups.values())))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        found = [group[name] for group in groups.values()]
        axes.bar(
            [g + (i - (len(names) - 1) / 2) * width for g in range(len(groups))],
            [e.value for e in found],
            width * 0.92,
            yerr=_errors(found),
            capsize=3,
            label=name,
            color=f"C{i}",
        )
    for g, line in enumerate(lines):
        axes.hlines(line, g - 0.45, g + 0.45, color="black", linestyles="dashed", linewidth=1)
    axes.set_xticks(range(len(groups)), list(groups))
    figure.legend(frameon=False, loc="outside upper center", ncols=len(names))
    _save(figure, path)


def curves(
    path: Path,
    x: Sequence[float],
    series: Mapping[str, Sequence[Estimate]],
    *,
    xlabel: str,
    ylabel: str,
    top: float,
) -> None:
    """One line with its intervals for every series, as far as they are below `top`."""
    figure, axes = _figure(ylabel)
    for i, (name, found) in enumerate(series.items()):
        axes.errorbar(
            x,
            [min(e.value, 2 * top) for e in found],
            yerr=_errors([Estimate(*(min(x, 2 * top) for x in astuple(e))) for e in found]),
            capsize=3,
            marker="o",
            markersize=4,
            label=name,
            color=f"C{i}",
        )
    axes.set_xlabel(xlabel)
    axes.set_ylim(0, top)
    axes.legend(frameon=False, loc="upper left")
    _save(figure, path)


def _figure(ylabel: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _errors(found: Sequence[Estimate]) -> list[list[float]]:
    return [[e.value - e.low for e in found], [e.high - e.value for e in found]]


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasSVG(figure)
    # Without a date, the same figures are the same file but for the names of clip paths.
    figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")
