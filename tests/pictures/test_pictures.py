"""The pictures of a card: the same bytes each time, whatever a label says, and alike everywhere."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from hubsplice.card import render_card
from hubsplice.card.render import card_data
from hubsplice.checkpoint.manifest import Manifest
from hubsplice.fidelity.report import FidelityReport
from hubsplice.files.digest import digest_file
from hubsplice.pictures import drawing
from hubsplice.pictures.canvas import GROUND, INK, WIDTH, drawn_with, readable
from hubsplice.pictures.drawing import (
    DIVERGENCE,
    LAYERS,
    PICTURES,
    RESPONSES,
    PictureError,
    pictures,
    shown,
    write_pictures,
)
from hubsplice.pictures.responses import MOST_PANELS
from tests.card.examples import manifest, report
from tests.pictures.examples import measured, spliced, with_curves

GOLDEN = Path(__file__).parent / "golden"


def dots(data: bytes) -> NDArray[np.float64]:
    """Red, green and blue of each dot, 0 to 1."""
    return np.asarray(imread(io.BytesIO(data), format="png"), dtype=np.float64)[..., :3]


def difference(data: bytes, name: str) -> float:
    """The share of dots that are clearly otherwise than in a golden file; 1 for another size."""
    found, golden = dots(data), dots((GOLDEN / name).read_bytes())
    if found.shape != golden.shape:
        return 1.0
    # Versions of matplotlib differ in the shades at the edges of letters.
    return float((np.abs(found - golden).max(axis=2) > 0.5).mean())


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    """The files of all pictures."""
    return {name: picture.png() for name, picture in pictures(spliced(), measured()).items()}


@pytest.mark.parametrize("name", PICTURES)
def test_each_picture_is_the_golden_one(drawn: dict[str, bytes], name: str) -> None:
    assert difference(drawn[name], name) < 0.0004


@pytest.mark.parametrize(
    ("name", "others"),
    [
        (LAYERS, (spliced(41), measured())),
        (RESPONSES, (spliced(), measured(wrong=0.25))),
        (DIVERGENCE, (spliced(), measured(error=0.004))),
    ],
)
def test_another_model_gives_another_picture(
    name: str, others: tuple[Manifest, FidelityReport]
) -> None:
    assert difference(pictures(*others)[name].png(), name) > 0.0008


def test_the_same_bytes_whatever_the_settings_of_this_machine(drawn: dict[str, bytes]) -> None:
    own: Any = {
        "font.size": 30,
        "text.hinting": "none",
        "path.simplify": False,
        "axes.facecolor": "#123456",
        "savefig.dpi": 20,
        "lines.antialiased": False,
    }
    with matplotlib.rc_context(own):
        after = {name: picture.png() for name, picture in pictures(spliced(), measured()).items()}
        assert matplotlib.rcParams["font.size"] == 30
    assert drawn == after
    assert drawn_with().encode() in drawn[LAYERS]


def test_a_page_may_be_white_or_dark(drawn: dict[str, bytes]) -> None:
    ground = tuple(int(GROUND[i : i + 2], 16) / 255 for i in (1, 3, 5))
    for picture in drawn.values():
        whole = np.asarray(imread(io.BytesIO(picture), format="png"))
        assert whole.shape[2] == 3 or whole[..., 3].min() == 1
        # Most of it is ground, and what is written on it can be told from it.
        assert np.isclose(whole[..., :3], ground).all(axis=2).mean() > 0.5
    assert contrast(INK, GROUND) > 7


def contrast(one: str, other: str) -> float:
    """As WCAG counts it."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05

    return max(light(one), light(other)) / min(light(one), light(other))


def test_a_label_is_only_ever_text() -> None:
    labels = ("$x^$ \\frac{", "a <b> & \x00\ud800\u202e]]>", "宇宙 🚀", "l" * 300)
    found = pictures(manifest(), with_curves(*labels))
    assert dots(found[RESPONSES].png()).shape[1] == 2 * WIDTH
    assert readable("a\u202eb\nc", 9) == "a b c"
    assert len(readable(labels[-1], 29)) == 29


def test_what_they_show_is_said_in_words() -> None:
    found = {name: picture.alt for name, picture in pictures(spliced(), measured()).items()}
    assert found[LAYERS].startswith(
        "Layer map: of 42 layers, 40 are the base's, unchanged; layer 2 is inserted after the "
        "base's layer 1: ablate feature 12 (regular expressions) and 1 more; layer 3 is inserted"
    )
    assert found[LAYERS].endswith("layer 41, the base's, has a bias: steer vector")
    assert found[RESPONSES].startswith("Response curves of 2 edits")
    assert "noise floor, 0.00170" in found[DIVERGENCE]
    many = with_curves(*(f"edit {i}" for i in range(40)))
    assert f"{MOST_PANELS} of 40 edits" in pictures(manifest(), many)[RESPONSES].alt


def test_a_picture_stays_small() -> None:
    many = with_curves(*(f"edit {i}" for i in range(40)))
    assert len(pictures(manifest(), many)[RESPONSES].png()) < 400_000
    assert dots(pictures(spliced(200), report())[LAYERS].png()).shape[0] < 2 * 800


def test_what_there_is_nothing_to_show_of_has_no_picture() -> None:
    assert set(pictures(manifest(), None)) == {LAYERS}
    assert set(pictures(manifest(), report())) == {LAYERS, DIVERGENCE}
    slots = {"above": 1, "below": 1, "bends": 1, "lines": 1}
    assert pictures(manifest(slots=slots), None) == {}


def test_the_manifest_lists_them_and_the_card_shows_them(tmp_path: Path) -> None:
    written = write_pictures(manifest(), measured(), tmp_path)
    assert written.lost == ()
    for name in PICTURES:
        assert written.manifest.files[name] == digest_file(tmp_path / name)
    text = render_card(written.manifest, measured(), model_id="me/model")
    places = [text.index(f"]({name})") for name in PICTURES]
    assert places == sorted(places)
    assert text.index("## Fidelity") < places[0]
    assert "could not draw" not in text
    data = json.loads(card_data(written.manifest, measured(), model_id="me/model"))
    assert set(data["pictures"]) == {"layers", "responses", "divergence"}
    # A later measurement without curves has no picture of them.
    again = write_pictures(written.manifest, report(), tmp_path)
    assert RESPONSES not in again.manifest.files


def test_a_picture_that_cannot_be_drawn_loses_nothing_else(tmp_path: Path) -> None:
    made = measured()
    flat = made.curves[0].model_copy(update={"p": (1.0,) * len(made.curves[0].p)})
    made = made.model_copy(update={"curves": (flat,)})
    with pytest.raises(PictureError, match="ZeroDivisionError"):
        pictures(manifest(), made)[RESPONSES].png()
    written = write_pictures(manifest(), made, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {LAYERS, DIVERGENCE}
    (lost,) = written.lost
    assert lost.startswith(f"the card lacks a picture: {RESPONSES} could not be drawn (Zero")
    assert shown(written.manifest, made)[1] == (RESPONSES,)
    text = render_card(written.manifest, made, model_id="me/model")
    assert "The build could not draw `responses.png`; the tables below" in text


def test_without_matplotlib_a_build_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'matplotlib'")

    monkeypatch.setattr(drawing, "own_settings", missing)
    written = write_pictures(manifest(), measured(), tmp_path)
    assert len(written.lost) == 3
    assert all("No module named 'matplotlib'" in sentence for sentence in written.lost)
    assert not list(tmp_path.iterdir())
