"""SHA-256 of files and of parts of files, in bounded memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

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


def digest_file(path: Path) -> FileDigest:
    """The digest of a whole file.

    Raises:
        OSError: the file cannot be read.
    """
    return digest_sections(path, 0)[0]


def digest_sections(
    path: Path,
    split: int,
    *,
    on_read: Callable[[int], None] | None = None,
    cancelled: threading.Event | None = None,
) -> tuple[FileDigest, FileDigest]:
    """The digests of a file and of its part from byte `split` on, from one reading.

    Args:
        path: the file.
        split: where the second section begins.
        on_read: called with the number of bytes after each chunk.
        cancelled: once set, reading stops early and the digests mean nothing.

    Raises:
        OSError: the file cannot be read.
    """
    whole, tail, size = hashlib.sha256(), hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(min(_CHUNK, split - size) if size < split else _CHUNK):
            whole.update(chunk)
            if size >= split:
                tail.update(chunk)
            size += len(chunk)
            if on_read is not None:
                on_read(len(chunk))
            if cancelled is not None and cancelled.is_set():
                break
    return (
        FileDigest(whole.hexdigest(), size),
        FileDigest(tail.hexdigest(), max(size - split, 0)),
    )
