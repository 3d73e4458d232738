"""Room on the disk: asked for before writing, and explained when it runs out."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from hubsplice.errors import OutputError

_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNITS = ("kB", "MB", "GB", "TB")


def require_free_space(folder: Path, needed: int) -> None:
    """Refuse to begin what cannot end.

    Args:
        folder: an existing folder on the filesystem in question.
        needed: bytes that will be written.

    Raises:
        OutputError: fewer bytes are free; the message says how many of each.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder}: not enough space: {readable_size(needed)} are needed, "
            f"{readable_size(free)} are free"
        )


def full_disk(error: OSError, folder: Path, needed: int | None = None) -> OutputError | None:
    """What `error` means to a user when it says that there is no room; None for other errors.

    Args:
        error: what a write raised.
        folder: where the output was going.
        needed: bytes that the whole output takes, where known.
    """
    total = "" if needed is None else f"; the output needs {readable_size(needed)}"
    if error.errno in _OUT_OF_SPACE:
        reason = "the quota is used up" if error.errno == errno.EDQUOT else "the disk is full"
        free = shutil.disk_usage(folder).free
        return OutputError(f"{folder}: {reason}: {readable_size(free)} are free{total}")
    if error.errno == errno.EFBIG:
        return OutputError(
            f"{folder}: a file is larger than the filesystem or the limit on file sizes "
            f"(`ulimit -f`) allows{total}"
        )
    return None


def readable_size(size: int) -> str:
    """A number of bytes for a message: exact below 10 kB, three digits above."""
    if size < 10_000:
        return f"{size} bytes"
    thousands = next((n for n in range(1, len(_UNITS)) if size < 1000 ** (n + 1)), len(_UNITS))
    return f"{size / 1000**thousands:.3g} {_UNITS[thousands - 1]}"
