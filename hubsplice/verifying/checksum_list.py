"""The list of checksums for `sha256sum`, against the files that it is of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hubsplice.checkpoint.checksums import CHECKSUMS, checksum_list
from hubsplice.checkpoint.companions import CARD, CARD_DATA, MANIFEST
from hubsplice.files.digest import FileDigest, digest_file
from hubsplice.files.plain import read_plain


def checksum_problems(folder: Path, files: Mapping[str, FileDigest]) -> list[str]:
    """Where reproduce/SHA256SUMS is not the list of the checkpoint's files.

    The card may have been edited since, as people do on the Hub; a check of its own looks at it.

    Args:
        folder: the checkpoint.
        files: the digests in the manifest, which are compared with the files elsewhere.
    """
    expected = dict(files)
    try:
        found = [
            line
            for line in read_plain(folder / CHECKSUMS).decode().splitlines()
            if not line.endswith((f"  {CARD}", f"  {CARD_DATA}"))
        ]
        if (folder / MANIFEST).is_file():
            expected[MANIFEST] = digest_file(folder / MANIFEST)
    except FileNotFoundError:
        return [f"{CHECKSUMS}: missing"]
    except (OSError, UnicodeDecodeError) as error:
        return [f"{CHECKSUMS}: cannot be read: {error}"]
    wanted = checksum_list(expected).splitlines()
    problems = [f"{CHECKSUMS}: no line {line!r}" for line in wanted if line not in found]
    return problems + [f"{CHECKSUMS}: found {line!r}" for line in found if line not in wanted]
