"""The committed figures against what the compiler makes now."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.figures.families import FIGURES, FOLDER

# Another processor's last bits move no curve so far that it would be seen.
PIXELS = 1.0

_COORDINATES = re.compile(r'(?<= d="M)[-\d. ]+(?=")|(?<= c[xy]=")[^"]+')


def lines(svg: str) -> list[list[float]]:
    """The coordinates of every line, curve and disc."""
    return [[float(number) for number in found.split()] for found in _COORDINATES.findall(svg)]


def by_place(line: list[float]) -> dict[float, float]:
    return dict(zip(line[0::2], line[1::2], strict=True))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_show_what_the_compiler_makes(name: str) -> None:
    made, committed = FIGURES[name]().svg(), (FOLDER / name).read_text(encoding="utf-8")
    outdated = f"{name} is outdated: run `make figures`"
    assert _COORDINATES.sub("", made) == _COORDINATES.sub("", committed), outdated
    for now, before in zip(lines(made), lines(committed), strict=True):
        if len(now) == len(before):
            assert now == pytest.approx(before, abs=PIXELS), outdated
            continue
        # A curve that leaves its plot may do so one point earlier or later, at either end.
        places, earlier = by_place(now), by_place(before)
        shared = places.keys() & earlier.keys()
        assert len(places.keys() | earlier.keys()) - len(shared) <= 2, outdated
        assert all(abs(places[x] - earlier[x]) <= PIXELS for x in shared), outdated


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.svg")), ids=lambda path: path.name)
def test_figures_have_a_title_and_their_text_as_text(path: Path) -> None:
    root = ElementTree.parse(path).getroot()
    found = {element.tag.rpartition("}")[2]: element for element in root.iter()}
    assert found["title"].text
    assert "text" in found
