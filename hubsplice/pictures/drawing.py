"""Which pictures a checkpoint has, what they show in words, and drawing them into its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.errors import first_line
from hubsplice.fidelity.report import FidelityReport
from hubsplice.files.digest import digest_bytes
from hubsplice.pictures.canvas import own_settings
from hubsplice.pictures.divergence import divergence_description, divergence_picture
from hubsplice.pictures.layers import layers_description, layers_picture
from hubsplice.pictures.responses import responses_description, responses_picture

LAYERS, RESPONSES, DIVERGENCE = "layers.png", "responses.png", "divergence.png"
PICTURES = (LAYERS, RESPONSES, DIVERGENCE)


class PictureError(Exception):
    """A picture could not be drawn."""


@dataclass(frozen=True)
class Picture:
    """One picture that a checkpoint is to have.

    Attributes:
        name: of its file.
        alt: what it shows, in words.
    """

    name: str
    alt: str
    _drawn: Callable[[], bytes]

    def png(self) -> bytes:
        """Its file.

        Raises:
            PictureError: it can't be drawn.
        """
        try:
            with own_settings():
                return self._drawn()
        except Exception as error:
            raise PictureError(f"{type(error).__name__}: {first_line(error)}") from error


def pictures(manifest: Manifest, report: FidelityReport | None) -> dict[str, Picture]:
    """The pictures of a checkpoint or an adapter, by name: none of a carrier.

    A report without curves, of constant edits alone, has no picture of them.
    """
    if manifest.slots is not None:
        return {}
    found = [Picture(LAYERS, layers_description(manifest), partial(layers_picture, manifest))]
    if report is not None and report.precisions:
        if report.curves:
            draw = partial(responses_picture, report)
            found.append(Picture(RESPONSES, responses_description(report), draw))
        draw = partial(divergence_picture, report)
        found.append(Picture(DIVERGENCE, divergence_description(report), draw))
    return {picture.name: picture for picture in found}


@dataclass(frozen=True)
class Written:
    """What came of drawing.

    Attributes:
        manifest: the manifest that lists the pictures.
        lost: a sentence for each picture that could not be drawn.
    """

    manifest: Manifest
    lost: tuple[str, ...]


def write_pictures(manifest: Manifest, report: FidelityReport | None, folder: Path) -> Written:
    """Write a checkpoint's pictures into a folder, and list them in its manifest.

    A picture that can't be drawn loses nothing else.

    Raises:
        OSError: a file can't be written.
    """
    lost = []
    files = {name: digest for name, digest in manifest.files.items() if name not in PICTURES}
    for name, picture in pictures(manifest, report).items():
        try:
            drawn = picture.png()
        except PictureError as error:
            lost.append(f"the card lacks a picture: {name} could not be drawn ({error})")
            continue
        (folder / name).write_bytes(drawn)
        files[name] = digest_bytes(drawn)
    return Written(manifest.model_copy(update={"files": files}), tuple(lost))


def shown(
    manifest: Manifest, report: FidelityReport | None
) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """The alternative text of each picture that a folder has, and the names of those it lacks."""
    expected = pictures(manifest, report)
    return (
        {name: picture.alt for name, picture in expected.items() if name in manifest.files},
        tuple(name for name in expected if name not in manifest.files),
    )
