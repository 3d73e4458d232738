"""A built folder as something to publish: verified, with the checksums that the Hub knows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hubsplice.card.context import untitled
from hubsplice.card.write import card_files
from hubsplice.checkpoint.checksums import CHECKSUMS, checksum_list
from hubsplice.checkpoint.companions import CARD, CARD_DATA, MANIFEST
from hubsplice.checkpoint.manifest import Manifest, read_manifest
from hubsplice.errors import CheckpointError, FidelityError, NotShownError, UnsupportedError
from hubsplice.fidelity.report import FidelityReport, read_report
from hubsplice.fidelity.verdict import refuse_no_ratio, verdict
from hubsplice.files.digest import FileDigest, digest_bytes, digest_file
from hubsplice.files.meter import meter
from hubsplice.files.plain import is_folder, read_plain
from hubsplice.intervention.saved import RECIPE
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.reading import recorded_recipe

LARGEST_IN_GIT = 10 * 1024 * 1024
"""In bytes; the Hub keeps a larger file in its storage, and so asks for no git hash of it."""


@dataclass(frozen=True)
class LocalFile:
    """A file to publish.

    Attributes:
        digest: SHA-256 and size in bytes.
        blob_id: its git hash; None for one too large for git.
        source: where its bytes are: a path, or the bytes themselves.
    """

    digest: FileDigest
    blob_id: str | None
    source: Path | bytes


@dataclass(frozen=True, eq=False)
class BuiltFolder:
    """What `hubsplice build` wrote, verified against its manifest.

    Attributes:
        folder: where it is.
        manifest: what it is made of.
        report: its fidelity; None where it was not measured.
        recipe: what it was built from, where that is recorded.
    """

    folder: Path
    manifest: Manifest
    report: FidelityReport | None
    recipe: Recipe | None
    _files: Mapping[str, LocalFile]

    @property
    def title(self) -> str:
        """What to call the publication; the same for every build of a recipe."""
        title = self.recipe.title if self.recipe else None
        return title or untitled(self.manifest)

    def files(
        self, model_id: str, license_id: str | None, *, keep_card: bool = False
    ) -> dict[str, LocalFile]:
        """All files to publish, by name, with a card that bears the model's id.

        The list of checksums has that card's.

        Args:
            model_id: what the card's examples load.
            license_id: another licence than the base's, or None.
            keep_card: publish the folder's README.md as it is.
        """
        made = card_files(self.folder, model_id=model_id, license_id=license_id)
        files = {**self._files, **{name: _in_memory(text.encode()) for name, text in made.items()}}
        if keep_card:
            files[CARD] = _in_memory(read_plain(self.folder / CARD))
        digests = {name: file.digest for name, file in files.items()}
        files[CHECKSUMS] = _in_memory(checksum_list(digests).encode())
        return dict(sorted(files.items()))


def open_built(
    folder: Path,
    *,
    require_fidelity: float | None,
    allow_failed: bool,
    allow_misfit: bool = False,
    on_read: Callable[[int, int], None],
) -> BuiltFolder:
    """Verify a built folder, reading every file once.

    Args:
        folder: what `hubsplice build` wrote, or a download of it.
        require_fidelity: the largest ratio of splice error to noise floor that passes, beside
            what the report was held to; None asks for nothing more.
        allow_failed: accept a checkpoint that missed the fidelity that it requires.
        allow_misfit: accept one that was built with an SAE that does not fit its base.
        on_read: told how many bytes have been read, of how many.

    Raises:
        CheckpointError: hubsplice did not build the folder, or a file was altered, is missing,
            or is none that hubsplice wrote.
        FidelityError: the required fidelity was missed, or not measured.
        UnsupportedError: it was built with an SAE that does not fit its base.
    """
    refuse_no_ratio(require_fidelity)
    if not is_folder(folder):
        raise CheckpointError(f"{folder}: expected a recipe or a folder that hubsplice built")
    manifest = read_manifest(folder / MANIFEST)
    report = read_report(folder)
    if not allow_failed:
        _refuse_failed(folder, report, require_fidelity)
    if not allow_misfit:
        _refuse_misfit(folder, manifest)
    _refuse_unknown(folder, {*manifest.files, MANIFEST, CARD, CARD_DATA, CHECKSUMS})
    total = sum(expected.size for expected in manifest.files.values())
    read = meter(total, on_read)
    files = {}
    for name, expected in sorted(manifest.files.items()):
        files[name] = _verified(folder / name, expected, read)
    manifest_bytes = read_plain(folder / MANIFEST)
    files[MANIFEST] = LocalFile(
        digest_bytes(manifest_bytes), _blob_id(manifest_bytes), folder / MANIFEST
    )
    recipe = recorded_recipe(folder / RECIPE) if RECIPE in manifest.files else None
    return BuiltFolder(folder, manifest, report, recipe, files)


def _refuse_failed(folder: Path, report: FidelityReport | None, require: float | None) -> None:
    if report is None:
        if require is None:
            return
        raise FidelityError(
            f"{folder}: a fidelity of {require:g} is required, but it was not measured"
        )
    sentence, outcome, passed = report.verdict, report.outcome, report.passed
    if require is not None and report.schema_version == 1:
        raise NotShownError(
            f"{folder}: its report is of an older hubsplice, which looked at the mean over all "
            "tokens; measure it again with `hubsplice measure`"
        )
    if passed is not False and require is not None:
        sentence, outcome, passed = verdict(report.precisions[0], require)
    if passed is False:
        kind = NotShownError if outcome == "not shown" else FidelityError
        raise kind(f"{folder}: {sentence} --allow-failed publishes it anyway")


def _refuse_misfit(folder: Path, manifest: Manifest) -> None:
    fits = manifest.calibration.sae_fit if manifest.calibration else {}
    for place, fit in fits.items():
        if fit.misfit:
            raise UnsupportedError(
                f"{folder}: after layer {place}, {'; '.join(fit.doubts)}. --allow-misfit publishes "
                "it anyway"
            )


def _in_memory(data: bytes) -> LocalFile:
    return LocalFile(digest_bytes(data), _blob_id(data), data)


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


def _verified(path: Path, expected: FileDigest, on_read: Callable[[int], None]) -> LocalFile:
    try:
        found = digest_file(path, on_read=on_read)
        blob_id = _blob_id(read_plain(path)) if found.size <= LARGEST_IN_GIT else None
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing, although the manifest lists it") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if found.sha256 != expected.sha256:
        raise CheckpointError(
            f"{path}: it was altered after the build: sha256 {found.sha256}, expected "
            f"{expected.sha256}"
        )
    return LocalFile(found, blob_id, path)


def _blob_id(data: bytes) -> str:
    """Git's name of a file with this content, which is no measure of security here."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
