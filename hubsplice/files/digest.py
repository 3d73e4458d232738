"""SHA-256 of files, in bounded memory."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from hubsplice.files.plain import open_plain

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]

_CHUNK = 1 << 22

# What is younger may be written to once more without its times showing that.
_SETTLED_SECONDS = 2.0

_Status = tuple[int, ...]
_known: dict[_Status, FileDigest] = {}


@dataclass(frozen=True)
class FileDigest:
    """A file's content, named by its hash.

    Attributes:
        sha256: in lower-case hexadecimal digits.
        size: in bytes.
    """

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


def digest_bytes(data: bytes) -> FileDigest:
    """The digest of a file that holds exactly `data`."""
    return FileDigest(hashlib.sha256(data).hexdigest(), len(data))


def digest_file(path: Path, *, on_read: Callable[[int], None] | None = None) -> FileDigest:
    """The digest of a whole file.

    Args:
        path: the file.
        on_read: called with the number of bytes after each chunk.

    Raises:
        OSError: the file cannot be read.
    """
    sha256, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(_CHUNK))
    with open_plain(path) as file:
        while count := file.readinto(buffer):
            sha256.update(buffer[:count])
            size += count
            if on_read is not None:
                on_read(count)
    return FileDigest(sha256.hexdigest(), size)


def digest_once(path: Path) -> FileDigest:
    """The digest of a whole file, computed once in a process as long as nobody writes to it.

    Raises:
        OSError: the file cannot be read.
    """
    status = path.stat()
    known = known_digest(status)
    if known is not None:
        return known
    found = digest_file(path)
    remember_digest(status, found)
    return found


def known_digest(status: os.stat_result) -> FileDigest | None:
    """The digest of a file that was computed before, if it is as it was then."""
    return _known.get(_key(status))


def remember_digest(status: os.stat_result, digest: FileDigest) -> None:
    """Know a digest from now on.

    Args:
        status: of the file before it was read.
        digest: what was read.
    """
    if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_SECONDS:
        _known[_key(status)] = digest


def _key(status: os.stat_result) -> _Status:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
