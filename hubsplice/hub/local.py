"""Publishing to a local folder: verified, copied, described under the new name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hubsplice.card.write import card_text, write_card
from hubsplice.checkpoint.companions import CARD, MANIFEST
from hubsplice.checkpoint.copying import clone_file, copy_range
from hubsplice.checkpoint.digest import digest_file
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.checkpoint.space import require_free_space
from hubsplice.checkpoint.staging import refuse_occupied, staged_directory
from hubsplice.errors import CheckpointError, FidelityError, OutputError
from hubsplice.fidelity.report import read_report
from hubsplice.recipe import load_recipe
from hubsplice.reproduction import RECIPE


@dataclass(frozen=True)
class Publication:
    """What publishing a folder writes.

    Attributes:
        model_id: how the card calls the model.
        sizes: in bytes, by file name, the card last.
    """

    model_id: str
    sizes: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())


def plan_publication(folder: Path, to: Path, *, allow_failed: bool = False) -> Publication:
    """Verify a built folder, and say what publishing it would write; nothing is written.

    Args:
        folder: what `hubsplice build` wrote, or a download of it.
        to: the target; missing or empty.
        allow_failed: accept a checkpoint that missed the fidelity that it requires.

    Raises:
        CheckpointError: hubsplice did not build the folder, or a file was altered, is missing,
            or is none that hubsplice wrote.
        FidelityError: the report says that the required fidelity was missed.
        OutputError: the target is not empty, or lies within the folder.
    """
    target = Path(os.path.realpath(to))
    if target.is_relative_to(os.path.realpath(folder)):
        raise OutputError(f"{target}: expected a folder outside of {folder}")
    refuse_occupied(target)
    manifest = read_manifest(folder / MANIFEST)
    report = read_report(folder)
    if report is not None and report.passed is False and not allow_failed:
        raise FidelityError(f"{folder}: {report.verdict} --allow-failed publishes it all the same")
    _refuse_unknown(folder, {*manifest.files, MANIFEST, CARD})
    for name, expected in manifest.files.items():
        _verify(folder / name, expected.sha256)
    recipe = load_recipe(folder / RECIPE) if (folder / RECIPE).is_file() else None
    model_id = (recipe.publish.repo_id if recipe else None) or target.name
    sizes = {name: digest.size for name, digest in sorted(manifest.files.items())}
    sizes[MANIFEST] = (folder / MANIFEST).stat().st_size
    sizes[CARD] = len(card_text(folder, model_id=model_id).encode())
    return Publication(model_id, sizes)


def publish_to_folder(folder: Path, to: Path, *, allow_failed: bool = False) -> Path:
    """Copy a built folder to another, whole or not at all, with a card that bears its name.

    Args:
        folder: what `hubsplice build` wrote, or a download of it.
        to: the target; missing or empty.
        allow_failed: publish a checkpoint that missed the fidelity that it requires.

    Returns:
        The target.

    Raises:
        HubspliceError: as `plan_publication`, or the disk is full; nothing is left behind.
    """
    publication = plan_publication(folder, to, allow_failed=allow_failed)
    with staged_directory(to) as staging:
        require_free_space(staging, publication.total)
        for name in publication.sizes:
            if name != CARD:
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                _copy(folder / name, staging / name)
        write_card(staging, model_id=publication.model_id)
    return to


def _refuse_unknown(folder: Path, known: set[str]) -> None:
    for name in sorted(_visible_files(folder)):
        if name not in known:
            raise CheckpointError(
                f"{folder / name}: the manifest does not list it; only what hubsplice wrote is "
                "published: remove the file"
            )


def _visible_files(folder: Path) -> Iterator[str]:
    """Files by relative name, without the hidden ones that download tools leave."""
    for path, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield Path(path, name).relative_to(folder).as_posix()


def _verify(path: Path, sha256: str) -> None:
    try:
        found = digest_file(path).sha256
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing, and the manifest lists it") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if found != sha256:
        raise CheckpointError(
            f"{path}: it was altered after the build: sha256 {found}, expected {sha256}"
        )


def _copy(source: Path, destination: Path) -> None:
    with source.open("rb") as read, destination.open("xb") as written:
        if not clone_file(read.fileno(), written.fileno()):
            copy_range(
                read.fileno(),
                written.fileno(),
                offset=0,
                destination_offset=0,
                count=source.stat().st_size,
                on_copied=lambda _: None,
            )
