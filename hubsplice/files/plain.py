"""Reading a file that somebody else gave: a plain one, no larger than such a file can be.

A pipe would keep its reader waiting for ever, and a device has no end.
"""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
from pathlib import Path

LARGEST_TEXT = 1 << 26
"""Bytes of a file that is parsed as a whole: 64 MiB."""

LARGEST_COMPANION = 1 << 29
"""Bytes of a tokenizer, a template or a licence: 512 MiB."""


def open_plain(path: Path) -> FileIO:
    """Open a plain file for reading, unbuffered; links to plain files are followed.

    Raises:
        OSError: it is missing, no plain file, or can't be opened; `strerror` says which.
    """
    # Looked at before it is opened, since opening some devices does something.
    _refuse_others(_stat(path), path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse_others(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return FileIO(descriptor)


def read_plain(path: Path, largest: int = LARGEST_TEXT) -> bytes:
    """The content of a plain file.

    Raises:
        OSError: of `open_plain`, or it has more than `largest` bytes.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = b"" if size > largest else _read(file, largest + 1)
    if max(size, len(data)) > largest:
        found = max(size, len(data))
        raise OSError(
            errno.EINVAL, f"it has {found} bytes, expected at most {largest}", os.fspath(path)
        )
    return data


def require_plain(path: Path) -> None:
    """Raise `OSError` unless `path` is a plain file, or a link to one."""
    _refuse_others(_stat(path), path)


def is_plain(path: Path) -> bool:
    """Whether `path` is a plain file, or a link to one."""
    try:
        require_plain(path)
    except OSError:
        return False
    return True


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder; a name that no file can have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def not_a_folder(path: Path) -> str:
    """Why `path` is no folder, where it is none."""
    return "it is a file, expected a folder" if exists(path) else "there is no such folder"


def exists(path: Path) -> bool:
    """Whether there is anything at `path`; there is nothing of a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _read(file: FileIO, count: int) -> bytes:
    parts = []
    while count > 0 and (part := file.read(min(count, 1 << 20))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except ValueError:
        # Python's word for a name that no file can have.
        raise OSError(errno.EINVAL, "the name holds a NUL character", os.fspath(path)) from None


def _refuse_others(found: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no plain file", os.fspath(path))
