"""Room on the disk: asked for before writing, and explained when it runs out."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from hubsplice.errors import OutputError

_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
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


def reserve(descriptor: int, folder: Path, size: int) -> None:
    """Take the room for a new file at once, holes and all, where a hole may take room later.

    Reading a hole through a mapping takes room on a filesystem in memory, and where there is none
    left, the process is killed in the middle.

    Args:
        descriptor: of the open file.
        folder: where it lies.
        size: of the whole file, in bytes.

    Raises:
        OSError: there is not enough room.
    """
    if size and holes_take_room(folder):
        os.posix_fallocate(descriptor, 0, size)


def holes_take_room(folder: Path) -> bool:
    """Whether what was never written of a file takes room in the end, where `folder` is."""
    return _filesystem(folder) in _IN_MEMORY


def _filesystem(folder: Path) -> str | None:
    """The kind of filesystem that a folder is on; None where the system doesn't say."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for mount in mounts.splitlines():
        fields = mount.split()
        if len(fields) > 3 and fields[2] == number and "-" in fields:
            return fields[fields.index("-") + 1]
    return None


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
