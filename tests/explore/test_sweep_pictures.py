"""A sweep as a picture: what stands where, as SVG and as PNG."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import matplotlib.image
import pytest

from hubsplice.explore.intervals import Mean
from hubsplice.explore.picture import layout, svg
from hubsplice.explore.picture_png import png
from hubsplice.explore.swept import Point, Sweep, judged

SVG = "{http://www.w3.org/2000/svg}"


def point(name: str, score: float, divergence: float) -> Point:
    target = Mean(score, score - 0.05, score + 0.05, 8)
    found = Mean(divergence, divergence * 0.8, divergence * 1.2, 8)
    return Point(name, None, (target,), found, 1.0, None, Mean(5, 5, 5, 8))


@pytest.fixture
def found() -> Sweep:
    points = (
        point("base", 0.1, 0.0),
        point("1", 0.12, 0.3),
        point("2", 0.9, 0.4),
        point("3", 0.5, 1.0),
    )
    return Sweep(
        "splices[0].edits[0].to",
        r"costs $x_1$ & <more>",
        (r"regex=\$\d+$",),
        "more",
        judged(points, "more"),
        8,
        1024,
        "r.sweep.jsonl",
    )


def test_better_stands_higher_and_dearer_stands_further_right(found: Sweep) -> None:
    marks = {mark.name: mark for mark in layout(found).marks}
    assert marks["base"].x < marks["1"].x < marks["2"].x < marks["3"].x
    assert marks["2"].y < marks["3"].y < marks["1"].y < marks["base"].y
    assert [mark.name for mark in layout(found).front] == ["base", "1", "2"]
    assert marks["2"].chosen
    assert all(m.left <= m.x <= m.right and m.high < m.y < m.low for m in marks.values())
    frame = layout(found)
    assert all(frame.left <= m.left and m.right <= frame.left + frame.width for m in marks.values())


def test_the_svg_has_every_strength_and_its_text_is_text(found: Sweep) -> None:
    drawn = ElementTree.fromstring(svg(found))
    dots = {(c.get("cx"), c.get("cy")): c.get("fill") for c in drawn.iter(f"{SVG}circle")}
    assert dots == {(f"{mark.x:.1f}", f"{mark.y:.1f}"): mark.colour for mark in layout(found).marks}
    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert r"splices[0].edits[0].to (costs $x_1$ & <more>)" in texts
    line = next(drawn.iter(f"{SVG}polyline")).get("points")
    assert line is not None
    assert len(line.split(" ")) == 3


def test_the_png_has_the_same_dots_in_the_same_places(found: Sweep) -> None:
    picture = png(found)
    assert png(found) == picture
    dots = matplotlib.image.imread(io.BytesIO(picture), format="png")
    width, height = layout(found).size
    assert dots.shape[:2] == (2 * height, 2 * width)
    for mark in layout(found).marks:
        red, green, blue, alpha = (
            round(255 * v) for v in dots[round(2 * mark.y), round(2 * mark.x)]
        )
        assert (f"#{red:02x}{green:02x}{blue:02x}", alpha) == (mark.colour, 255)
    # Nothing of it is see-through: it is read on dark pages too.
    assert (dots[..., 3] == 1).all()


def test_a_sweep_without_targets_is_drawn_too(found: Sweep) -> None:
    empty = replace(found, points=tuple(replace(p, scores=(None,)) for p in found.points))
    assert "circle" not in svg(empty)
    assert png(empty)
