"""`reproduce/SHA256SUMS`: every file of a checkpoint, in the form that `sha256sum -c` takes.

The manifest has the same digests, but it can't hold its own, and the card is written again under
other names. This list has both, so that one common tool checks a whole download.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from hubsplice.checkpoint.companions import CARD, CARD_DATA, MANIFEST
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.errors import CheckpointError, OutputError
from hubsplice.files.digest import FileDigest, digest_file
from hubsplice.files.plain import read_plain
from hubsplice.files.replacing import replace_file

CHECKSUMS = "reproduce/SHA256SUMS"
"""Where a spliced checkpoint carries it; names in it are relative to the checkpoint's folder."""

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


def checksum_list(files: Mapping[str, FileDigest]) -> str:
    """The list's text, sorted by name; names with odd characters are written as GNU does."""
    return "".join(_line(name, files[name].sha256) for name in sorted(files))


def recorded_digest(folder: Path, name: str) -> str | None:
    """The SHA-256 that a checkpoint's list has of one of its files; None where it has none.

    Raises:
        CheckpointError: the list is there, and can't be read.
    """
    try:
        lines = read_plain(folder / CHECKSUMS).decode().splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / CHECKSUMS}: cannot be read: {error}") from None
    return next((line[:64] for line in lines if line[64:] == f"  {name}"), None)


def write_checksums(folder: Path, *, but: Collection[str] = ()) -> None:
    """Write the list of a checkpoint whose manifest and card are there, over an earlier one.

    The digests of all other files are the manifest's: nothing large is read again.

    Args:
        folder: the checkpoint.
        but: names that are left out, since hubsplice did not write the files.

    Raises:
        CheckpointError: the manifest is missing or malformed.
        OutputError: the list can't be written.
    """
    files = dict(read_manifest(folder / MANIFEST).files)
    own = [name for name in (MANIFEST, CARD, CARD_DATA) if name not in but]
    beside = [name for name in own if (folder / name).is_file()]
    if (folder / CHECKSUMS).parent.is_symlink():
        raise OutputError(f"{(folder / CHECKSUMS).parent}: a link is in the way of a folder")
    try:
        files |= {name: digest_file(folder / name) for name in beside}
    except OSError as error:
        raise OutputError(f"{folder}: cannot be read: {error.strerror}") from None
    try:
        (folder / CHECKSUMS).parent.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from None
    replace_file(folder / CHECKSUMS, checksum_list(files))


def _line(name: str, sha256: str) -> str:
    escaped = "".join(_ESCAPES.get(character, character) for character in name)
    return f"{chr(92) if escaped != name else ''}{sha256}  {escaped}\n"
