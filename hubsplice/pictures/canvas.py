"""A sheet to draw on in pixels, and its PNG. The same drawing gives the same bytes.

matplotlib draws, and is imported when something is drawn. No setting of the user's is read, and the
only font is the one that comes with matplotlib.
"""

from __future__ import annotations

import io
import itertools
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from hubsplice import __version__

INK, FAINT, LINE, GROUND = "#24292f", "#57606a", "#d0d7de", "#ffffff"
"""Text, what is said aside, thin lines, and the ground, which dark pages need."""

BASE, SPLICE, SPREAD, ROUNDED = "#8fa7bf", "#d9480f", "#ffc078", "#adb5bd"
"""The base's, what was inserted and its spread, and what rounding does."""

WIDTH = 756
"""Of every picture on a card, in pixels; there are two dots to each, for sharp screens."""

_DOTS, _INCH = 2, 96
_POINTS = 72 / _INCH

Point = tuple[float, float]


class Canvas:
    """A sheet of some height and width; the origin is its upper left corner.

    What is drawn later covers what was drawn before.
    """

    def __init__(self, height: float, width: float = WIDTH) -> None:
        from matplotlib.figure import Figure

        self._drawn = itertools.count()
        self._figure = Figure((width / _INCH, height / _INCH), dpi=_DOTS * _INCH, facecolor=GROUND)
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set(xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()
        self.box(0.5, 0.5, width - 1, height - 1, edge=LINE)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str | None = None,
        edge: str | None = None,
    ) -> None:
        """A rectangle, by its upper left corner."""
        from matplotlib.patches import Rectangle

        self._axes.add_artist(
            Rectangle(
                (x, y),
                width,
                height,
                facecolor=fill or "none",
                edgecolor=edge or "none",
                linewidth=_POINTS if edge else 0,
                clip_on=False,
                zorder=next(self._drawn),
            )
        )

    def line(
        self, points: Sequence[Point], colour: str, width: float = 1, *, dashed: bool = False
    ) -> None:
        """A line through points; its width is in pixels."""
        from matplotlib.lines import Line2D

        style: Any = (0, (4 / width, 3 / width)) if dashed else "-"
        x, y = zip(*points, strict=True)
        self._axes.add_artist(
            Line2D(
                x,
                y,
                color=colour,
                linewidth=width * _POINTS,
                linestyle=style,
                clip_on=False,
                zorder=next(self._drawn),
            )
        )

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        """A filled circle."""
        from matplotlib.patches import Circle

        self._axes.add_artist(
            Circle((x, y), radius, facecolor=colour, linewidth=0, zorder=next(self._drawn))
        )

    def area(self, points: Sequence[Point], colour: str, alpha: float = 1) -> None:
        """What lies within points."""
        from matplotlib.patches import Polygon

        self._axes.add_artist(
            Polygon(
                points,
                closed=True,
                facecolor=colour,
                alpha=alpha,
                linewidth=0,
                zorder=next(self._drawn),
            )
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 11,
        colour: str = INK,
        bold: bool = False,
        align: Literal["left", "center", "right"] = "left",
        upright: bool = False,
    ) -> None:
        """Words on a line at y, or from below to above around it; their size is in pixels."""
        self._axes.text(
            x,
            y,
            words,
            color=colour,
            ha=align,
            va="center" if upright else "baseline",
            rotation=90 if upright else 0,
            fontproperties=self._font[bold],
            fontsize=size * _POINTS,
            # A dollar in a label is a dollar.
            parse_math=False,
            clip_on=False,
            zorder=next(self._drawn),
        )

    @cached_property
    def _font(self) -> tuple[Any, Any]:
        import matplotlib
        from matplotlib.font_manager import FontProperties

        folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
        return (
            FontProperties(fname=folder / "DejaVuSans.ttf"),
            FontProperties(fname=folder / "DejaVuSans-Bold.ttf"),
        )

    def png(self) -> bytes:
        """The picture; what it was drawn with stands in it."""
        found = io.BytesIO()
        self._figure.savefig(found, format="png", metadata={"Software": drawn_with()})
        return found.getvalue()


@contextmanager
def own_settings() -> Iterator[None]:
    """Draw as matplotlib comes, whatever its settings are on this machine."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context():
        matplotlib.rcdefaults()
        # A letter that the font lacks is a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def drawn_with() -> str:
    """What drew a picture: with another of these, a dot may lie elsewhere."""
    return f"hubsplice {__version__}, matplotlib {version('matplotlib')}, {platform.machine()}"


def readable(label: str, longest: int) -> str:
    """A label in one line, without characters that can't be seen."""
    text = " ".join("".join(c if c.isprintable() else " " for c in label).split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
