"""The pictures of a checkpoint against those that its manifest and report give.

They are drawn again and compared dot by dot. Another version of matplotlib, or another processor,
may place a dot otherwise: what it drew can't be compared here, and stays its author's claim.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.fidelity.report import FidelityReport
from hubsplice.files.plain import exists, read_plain
from hubsplice.pictures.canvas import drawn_with
from hubsplice.pictures.drawing import PICTURES, Picture, PictureError, pictures
from hubsplice.verifying.result import Check
from hubsplice.verifying.statements.ledger import AuthorClaim, as_json

PICTURE_CHECK = "pictures"

_LARGEST = 1 << 22
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNKS = (b"IHDR", b"pHYs", b"tEXt", b"IDAT", b"IEND")
"""What a drawing is made of."""

_SOFTWARE = b"Software\0"


def check_pictures(
    folder: Path, manifest: Manifest, report: FidelityReport | None
) -> tuple[Check, tuple[AuthorClaim, ...]]:
    """Whether a checkpoint's pictures are those that its manifest and report give.

    Args:
        folder: the checkpoint.
        manifest: its own.
        report: its own.

    Returns:
        A check, and the pictures that could not be compared.
    """
    expected = pictures(manifest, report)
    problems: list[str] = []
    claims: list[AuthorClaim] = []
    for name in PICTURES:
        if name not in expected:
            if exists(folder / name):
                problems.append(f"{name}: manifest and report have nothing that it could show")
            continue
        # One that could not be drawn says nothing, and one that is listed is missed elsewhere.
        if exists(folder / name):
            found = _compare(folder / name, expected[name], claims)
            problems += [f"{name}: {problem}" for problem in found]
    held = "they are those that manifest and report give"
    if claims:
        held = "those that can be compared are what manifest and report give"
    return Check.of(PICTURE_CHECK, problems, held), tuple(claims)


def _compare(path: Path, expected: Picture, claims: list[AuthorClaim]) -> Iterator[str]:
    try:
        data = read_plain(path, _LARGEST)
    except OSError as error:
        yield f"cannot be read: {error.strerror or error}"
        return
    try:
        given = expected.png()
    except PictureError as error:
        yield f"manifest and report can't be drawn: {error}"
        return
    if data == given:
        return
    try:
        software = _software(data)
    except (ValueError, struct.error) as error:
        yield f"not a drawing in PNG: {error}"
        return
    if software != drawn_with():
        why = f"it was drawn with {software or 'what it does not say'}, here is {drawn_with()}"
        claims.append(
            AuthorClaim(file=path.name, field="all of it", stated=as_json(expected.alt), why=why)
        )
    elif not _same_dots(data, given):
        yield "not the picture that manifest and report give"


def _software(data: bytes) -> str | None:
    """What a picture says that it was drawn with.

    Raises:
        ValueError: it is no PNG, or more than a drawing.
    """
    if not data.startswith(_SIGNATURE):
        raise ValueError("it does not begin as one")
    place, found, kind = len(_SIGNATURE), None, b""
    while place < len(data):
        if kind == b"IEND":
            raise ValueError("something follows its end")
        (size,) = struct.unpack_from(">I", data, place)
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        if kind not in _CHUNKS:
            raise ValueError(f"it holds a part {kind!r}, which no drawing has")
        if kind == b"tEXt":
            if found is not None or not content.startswith(_SOFTWARE) or len(content) > 200:
                raise ValueError("it holds text beside what it was drawn with")
            found = content.removeprefix(_SOFTWARE).decode("latin-1")
        place += 12 + size
    if kind != b"IEND":
        raise ValueError("its end is missing")
    return found


def _same_dots(data: bytes, given: bytes) -> bool:
    """Whether two pictures look alike; files may differ, since they are packed by zlib."""
    import matplotlib.image
    import numpy as np

    size = slice(len(_SIGNATURE), len(_SIGNATURE) + 16)
    if data[size] != given[size]:
        # It is not unpacked: it could be of any size.
        return False
    try:
        found, expected = (
            matplotlib.image.imread(io.BytesIO(d), format="png") for d in (data, given)
        )
    except (OSError, ValueError, SyntaxError):
        return False
    return np.array_equal(found, expected)
