"""Drawing in SVG: the shapes that the figures are made of, in the colours that all of them have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

INK, LINE, EDGE, GROUND = "#263238", "#455a64", "#78909c", "#eceff1"
CONSTANT, CONSTANT_GROUND, CONSTANT_INK = "#f9a825", "#fffde7", "#6d4c00"
RESULT = "#e65100"

Point = tuple[float, float]


@dataclass
class Canvas:
    """A drawing on a white ground, which dark pages need."""

    width: int
    height: int
    title: str
    shapes: list[str] = field(default_factory=list)

    def text(
        self,
        at: Point,
        text: str,
        *,
        size: float = 12,
        colour: str = INK,
        anchor: str = "start",
        weight: str = "normal",
    ) -> None:
        """One line of text, at its baseline."""
        x, y = at
        bold = "" if weight == "normal" else f' font-weight="{weight}"'
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{colour}" '
            f'text-anchor="{anchor}"{bold}>{escape(text)}</text>'
        )

    def box(self, at: Point, size: Point, lines: Sequence[str]) -> None:
        """A box with a name, and smaller lines under it."""
        (x, y), (width, height) = at, size
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="#ffffff" stroke="{EDGE}"/>'
        )
        first = y + height / 2 + 5 - 8 * (len(lines) - 1)
        for i, line in enumerate(lines):
            at = (x + width / 2, first + 17 * i)
            self.text(at, line, size=14 if i == 0 else 11, anchor="middle")

    def path(
        self,
        points: Iterable[Point],
        *,
        colour: str = LINE,
        width: float = 1.6,
        dashed: bool = False,
        arrow: bool = False,
    ) -> None:
        """A line through points."""
        data = " ".join(f"{x:.1f} {y:.1f}" for x, y in points)
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        head = f' marker-end="url(#{"a" if colour == LINE else "c"})"' if arrow else ""
        self.shapes.append(
            f'<path d="M{data}" stroke="{colour}" stroke-width="{width:g}" fill="none"'
            f"{dashes}{head}/>"
        )

    def plus(self, at: Point) -> None:
        """Where something is added to the stream."""
        x, y = at
        self.shapes.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="9" fill="#ffffff" stroke="{LINE}" '
            'stroke-width="1.6"/>'
        )
        self.text((x, y + 5), "+", size=14, anchor="middle")

    def dot(self, at: Point) -> None:
        """A small disc."""
        x, y = at
        self.shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{RESULT}"/>')

    def ground(self, at: Point, size: Point, *, fill: str, stroke: str = "none") -> None:
        """A coloured ground."""
        (x, y), (width, height) = at, size
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )

    def svg(self) -> str:
        """The file."""
        heads = "".join(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" markerUnits="userSpaceOnUse" orient="auto">'
            f'<path d="M0 0 8 4 0 8z" fill="{colour}"/></marker>'
            for name, colour in (("a", LINE), ("c", CONSTANT))
        )
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            'font-family="sans-serif">',
            f"<title>{escape(self.title)}</title>",
            f"<defs>{heads}</defs>",
            f'<rect width="{self.width}" height="{self.height}" fill="#ffffff"/>',
            *self.shapes,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Plot:
    """Curves over a window.

    Attributes:
        left, right, bottom, top: the window.
        thin, bold, dashed: curves.
        axis: what the horizontal axis counts.
        marks: labels along it.
        dots: where tokens lie.
    """

    left: float
    right: float
    bottom: float
    top: float
    axis: str
    thin: Sequence[Sequence[Point]] = ()
    bold: Sequence[Sequence[Point]] = ()
    dashed: Sequence[Sequence[Point]] = ()
    marks: Sequence[tuple[float, str]] = ()
    dots: Sequence[Point] = ()

    def draw(self, canvas: Canvas, at: Point, size: Point) -> None:
        """Draw it into a rectangle of a canvas."""
        (x, y), (width, height) = at, size

        def place(point: Point) -> Point:
            across = (point[0] - self.left) / (self.right - self.left)
            up = (point[1] - self.bottom) / (self.top - self.bottom)
            return x + width * across, y + height * (1 - up)

        zero = place((0.0, 0.0))[1]
        canvas.path([(x, zero), (x + width, zero)], colour="#b0bec5", width=1)
        canvas.text((x + width + 4, zero + 4), self.axis, size=11, colour=LINE)
        for value, label in self.marks:
            at = place((value, 0.0))
            canvas.path([(at[0], zero - 3), (at[0], zero + 3)], colour=EDGE, width=1)
            canvas.text((at[0], zero + 13), label, size=10, colour=LINE, anchor="middle")
        for curves, colour, stroke, dashed in (
            (self.thin, EDGE, 1.0, False),
            (self.dashed, LINE, 1.0, True),
            (self.bold, RESULT, 2.0, False),
        ):
            for curve in curves:
                inside = [p for p in curve if self.bottom <= p[1] <= self.top]
                canvas.path(map(place, inside), colour=colour, width=stroke, dashed=dashed)
        for point in self.dots:
            canvas.dot(place(point))
