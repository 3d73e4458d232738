"""SHA-256 of files, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from hubsplice.files.plain import open_plain

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]

_CHUNK = 1 << 22


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
