"""The same picture of a sweep as PNG, for what shows no SVG."""

from __future__ import annotations

from hubsplice.explore.picture import ACROSS, layout
from hubsplice.explore.swept import Sweep
from hubsplice.pictures.canvas import Canvas, own_settings

_LINE, _FRONT = "#999999", "#1f6fb2"


def png(sweep: Sweep) -> bytes:
    """The picture, two dots to a pixel."""
    found = layout(sweep)
    width, height = found.size
    with own_settings():
        sheet = Canvas(height, width)
        left, top = found.left, found.top
        right, below = left + found.width, top + found.height
        sheet.box(left, top, found.width, found.height, edge=_LINE)
        sheet.text(left, 22, found.title, size=14)
        sheet.text(left - 8, top + 12, found.highest, size=12, align="right")
        sheet.text(left - 8, below, found.lowest, size=12, align="right")
        sheet.text(left, below + 18, "0", size=12)
        sheet.text(right, below + 18, found.most, size=12, align="right")
        sheet.text((left + right) / 2, below + 42, ACROSS, size=12, align="center")
        sheet.text(18, (top + below) / 2, found.target, size=12, align="center", upright=True)
        if found.front:
            sheet.line([(m.x, m.y) for m in found.front], _FRONT, dashed=True)
        for mark in found.marks:
            sheet.line([(mark.left, mark.y), (mark.right, mark.y)], _LINE)
            sheet.line([(mark.x, mark.low), (mark.x, mark.high)], _LINE)
        for mark in found.marks:
            sheet.dot(mark.x, mark.y, mark.radius, mark.colour)
            sheet.text(mark.x + 8, mark.y - 6, mark.name, size=12)
        return sheet.png()
