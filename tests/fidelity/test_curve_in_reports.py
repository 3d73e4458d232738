"""What a response curve does to a verdict, and how it is shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from hubsplice import __version__
from hubsplice.fidelity.picture import (
    MOST_PANELS,
    PICTURE,
    PictureError,
    description,
    picture,
    write_report_and_picture,
)
from hubsplice.fidelity.report import (
    REPORT,
    Band,
    CurveFigures,
    CurvePrecision,
    FidelityReport,
    ResponseCurve,
    read_report,
    write_report,
)
from hubsplice.fidelity.verdict import judged
from hubsplice.verifying.statements.picture import picture_problems
from tests.card.examples import report
from tests.fidelity.test_verdict import edit, measured

RIGHT = CurveFigures(deviation=0.01, at=4.0, beyond=0.02, beyond_at=9.0, height=0.99)
WRONG = {
    "half": RIGHT.model_copy(update={"deviation": 0.5, "height": 0.5}),
    "moved": RIGHT.model_copy(update={"deviation": 0.9}),
    "silent": RIGHT.model_copy(update={"deviation": 1.0, "height": 0.0}),
}
SVG = "{http://www.w3.org/2000/svg}"


def outcome(**fields: Any) -> tuple[str, str]:
    (found,) = judged(measured(edit(**fields))).edits
    return found.outcome, found.reason


def test_a_curve_alone_shows_nothing() -> None:
    rare = {"acted_tokens": 0, "acted_sequences": 0, "strength": None, "residual_error": None}
    assert outcome(curve=RIGHT, **rare)[0] == "not shown"
    assert outcome(curve=RIGHT)[0] == "shown"


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_curve_fails_whatever_the_text_says(kind: str) -> None:
    assert outcome(curve=WRONG[kind])[0] == "fails"
    rare = {"acted_tokens": 3, "acted_sequences": 1}
    found, reason = outcome(curve=WRONG[kind], **rare)
    assert found == "fails"
    assert "by itself" in reason


def test_what_lies_beyond_the_text_is_told_and_not_judged() -> None:
    far = RIGHT.model_copy(update={"beyond": 3.0})
    assert outcome(curve=far)[0] == "shown"


def curve(label: str) -> ResponseCurve:
    zeros = Band(median=(0.0, -1.0, -2.1), low=(-0.1, -1.2, -2.4), high=(0.1, -0.9, -1.9))
    precisions = tuple(
        CurvePrecision(dtype=name, layer=zeros, hook=zeros) for name in ("bfloat16", "float32")
    )
    return ResponseCurve(
        label=label, layer=1, p=(-1.0, 1.0, 2.0), exact=(0.0, -1.0, -2.0), precisions=precisions
    )


def with_curves(*labels: str) -> FidelityReport:
    return report().model_copy(update={"curves": tuple(map(curve, labels))})


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_picture_is_xml_whatever_a_label_says() -> None:
    label = 'a <b> & "c"\x00\ud800\u202e]]>'
    made = with_curves(label, "plain")
    found = picture(made)
    assert found is not None
    assert 'a <b> & "c" ]]>' in texts(found)
    assert "plain" in texts(found)
    assert ElementTree.fromstring(found).findtext(f"{SVG}title") == description(made)
    assert picture(made) == found


def test_the_picture_has_a_ground_that_dark_pages_need() -> None:
    found = picture(with_curves("one"))
    assert found is not None
    root = ElementTree.fromstring(found)
    first = next(root.iter(f"{SVG}rect"))
    assert (first.get("fill"), first.get("width")) == ("#ffffff", root.get("width"))


def test_the_picture_shows_the_error_beside_the_noise_floor() -> None:
    found = picture(with_curves("one"))
    assert found is not None
    shown = texts(found)
    assert "splice error" in shown
    widths = [float(bar) for bar in re.findall(r'<rect y="\d+" width="([\d.]+)"', found)]
    assert len(widths) == 2 + ("noise floor" in shown)
    assert max(widths) == widths[0] == 430


def test_the_picture_stays_small() -> None:
    many = with_curves(*(f"edit {i}" for i in range(40)))
    found = picture(many)
    assert found is not None
    assert sum(bool(re.match(r"edit \d", text)) for text in texts(found)) == MOST_PANELS
    assert f"{MOST_PANELS} of 40 edits" in description(many)
    assert len(found) < 60_000


def test_without_curves_there_is_no_picture(tmp_path: Path) -> None:
    assert write_report_and_picture(report(), tmp_path) == report()
    assert [path.name for path in tmp_path.iterdir()] == [REPORT]


def test_a_picture_that_cannot_be_drawn_loses_nothing_else(tmp_path: Path) -> None:
    made = with_curves("one")
    flat = made.curves[0].model_copy(update={"p": (1.0,) * len(made.curves[0].p)})
    made = made.model_copy(update={"curves": (flat,)})
    with pytest.raises(PictureError, match="ZeroDivisionError"):
        picture(made)
    (tmp_path / "drawn").mkdir()
    drawn = with_curves("one")
    assert write_report_and_picture(drawn, tmp_path / "drawn") == drawn
    assert (tmp_path / "drawn" / PICTURE).read_text(encoding="utf-8") == picture(drawn)
    (tmp_path / "lost").mkdir()
    tmp_path /= "lost"
    written = write_report_and_picture(made, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [REPORT]
    assert read_report(tmp_path) == written
    assert written.model_copy(update={"warnings": made.warnings}) == made
    (warning,) = written.warnings[len(made.warnings) :]
    assert warning.startswith("fidelity.svg is missing: the response curves could not be drawn")
    # Whoever forges such a report gets no picture past verify.
    assert picture_problems(tmp_path, written, __version__) == []
    (tmp_path / PICTURE).write_text("<svg/>", encoding="utf-8")
    assert "can't be drawn" in picture_problems(tmp_path, written, __version__)[0]


def test_a_report_has_the_numbers_of_a_curve_in_one_line(tmp_path: Path) -> None:
    made = with_curves("[\n1,\n2]", "[ 1, 2 ]")
    text = write_report(made, tmp_path).read_text(encoding="utf-8")
    assert '"exact": [0.0, -1.0, -2.0]' in text
    assert read_report(tmp_path) == made
