"""The picture of a checkpoint against the one that its report gives: SVG may hold programs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from hubsplice import __version__
from hubsplice.fidelity.picture import PICTURE, PictureError, picture
from hubsplice.fidelity.report import FidelityReport
from hubsplice.files.plain import exists

_DRAWN = frozenset({"svg", "title", "g", "rect", "path", "text"})
"""The elements that a picture is made of; none of them loads or runs anything."""

_LARGEST = 1 << 22
_NAMESPACE = "{http://www.w3.org/2000/svg}"


def picture_problems(folder: Path, report: FidelityReport | None, version: str) -> list[str]:
    """Where a checkpoint's picture is not the one that its report gives.

    A picture that another version of hubsplice drew may look otherwise, but holds nothing that
    loads or runs.

    Args:
        folder: the checkpoint.
        report: its report.
        version: the version of hubsplice that the manifest names.
    """
    path = folder / PICTURE
    try:
        expected = None if report is None else picture(report)
    except PictureError as error:
        problem = f"{PICTURE}: the report's curves can't be drawn: {error}"
        return [problem] if exists(path) else []
    if not path.is_file():
        return [] if expected is None else [f"{PICTURE}: missing, and the report has curves"]
    if expected is None:
        return [f"{PICTURE}: the report has no curves that it could show"]
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if data == expected.encode():
        return []
    if version == __version__:
        return [f"{PICTURE}: not the picture that the report gives", *_risks(data)]
    return list(_risks(data))


def _risks(data: bytes) -> Iterator[str]:
    """What in a picture is more than a drawing."""
    if len(data) > _LARGEST:
        yield f"{PICTURE}: larger than any picture of curves"
        return
    if re.search(rb"<[!?]", data):
        # Entities and style sheets begin so; what is drawn has neither.
        yield f"{PICTURE}: it holds a declaration or an instruction"
        return
    try:
        root = ElementTree.fromstring(data)  # noqa: S314 (entities were refused above)
    except (ElementTree.ParseError, ValueError) as error:
        yield f"{PICTURE}: not SVG: {error}"
        return
    for element in root.iter():
        name = str(element.tag).removeprefix(_NAMESPACE)
        if name not in _DRAWN:
            yield f"{PICTURE}: it holds an element {name!r}, which no drawing of curves has"
        for key, value in element.attrib.items():
            if key.lower().startswith("on") or "href" in key.lower() or key == "style":
                yield f"{PICTURE}: it holds an attribute {key!r}, which no drawing of curves has"
            elif "(" in value and not re.fullmatch(r"translate\([\d. ]+\)", value):
                yield f"{PICTURE}: {key} is {value[:40]!r}, which no drawing of curves has"
