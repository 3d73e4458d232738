"""The bytes of LFS objects on disk, the uploads under way, and those kept by the Xet store."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tests.loopback.errors import HubError

if TYPE_CHECKING:
    from tests.loopback.xet import XetStore

_CHUNK = 1 << 20


@dataclass
class Upload:
    """Leave to store one object for one repository, as a signed URL of S3 gives it."""

    repo: str
    sha256: str
    size: int
    chunk_size: int | None
    etags: dict[int, str] = field(default_factory=dict)

    @property
    def part_count(self) -> int:
        return -(-self.size // self.chunk_size) if self.chunk_size else 1


class Storage:
    """Objects by SHA-256: on disk if they came by LFS, else in the Xet store (if there is one)."""

    def __init__(self, root: Path, xet: XetStore | None) -> None:
        self.root = root
        self.xet = xet
        self.uploads: dict[str, Upload] = {}
        self.downloads: dict[str, str] = {}
        (root / "lfs").mkdir(parents=True, exist_ok=True)
        (root / "incoming").mkdir(exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.root / "lfs" / sha256

    def xet_hash(self, sha256: str) -> str | None:
        return self.xet.by_sha256(sha256) if self.xet else None

    def size(self, sha256: str) -> int | None:
        """The size of a stored object in bytes; None if it isn't stored."""
        if self.xet and (file_hash := self.xet.by_sha256(sha256)):
            return self.xet.size(file_hash)
        path = self.path(sha256)
        return path.stat().st_size if path.exists() else None

    def read(self, sha256: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to before `stop` of a stored object, in pieces."""
        if self.path(sha256).exists():
            with self.path(sha256).open("rb") as file:
                file.seek(start)
                while start < stop and (piece := file.read(min(_CHUNK, stop - start))):
                    start += len(piece)
                    yield piece
        elif self.xet and (file_hash := self.xet.by_sha256(sha256)):
            position = 0
            for piece in self.xet.read(file_hash):
                low, high = max(start - position, 0), min(stop - position, len(piece))
                if low < high:
                    yield piece[low:high]
                position += len(piece)

    def begin(self, upload: Upload) -> str:
        """The key under which the parts of an upload are taken."""
        key = secrets.token_urlsafe(24)
        self.uploads[key] = upload
        return key

    def upload(self, key: str) -> Upload:
        if key not in self.uploads:
            raise HubError(403, "The signature of this upload is not valid")
        return self.uploads[key]

    async def receive_part(self, key: str, part: int, body: AsyncIterable[bytes]) -> str:
        """Take a part (numbered from 1) and give its ETag."""
        upload = self.upload(key)
        if not 1 <= part <= upload.part_count:
            raise HubError(400, f"There is no part {part} of {upload.part_count}")
        digest = hashlib.md5()
        with self._part(key, part).open("wb") as file:
            async for piece in body:
                digest.update(piece)
                file.write(piece)
        upload.etags[part] = digest.hexdigest()
        return upload.etags[part]

    def complete(self, key: str) -> None:
        """Join the parts into the object, if they have the size and the SHA-256 it was given.

        Raises HubError (400) if parts are missing or the content is another one.
        """
        upload = self.upload(key)
        numbers = range(1, upload.part_count + 1)
        if missing := [part for part in numbers if part not in upload.etags]:
            raise HubError(400, f"Parts are missing: {missing}")
        digest, size = hashlib.sha256(), 0
        whole = self.root / "incoming" / f"{key}.whole"
        with whole.open("wb") as target:
            for part in numbers:
                with self._part(key, part).open("rb") as source:
                    for piece in _pieces(source):
                        digest.update(piece)
                        size += len(piece)
                        target.write(piece)
                self._part(key, part).unlink()
        upload.etags.clear()
        if size != upload.size or digest.hexdigest() != upload.sha256:
            whole.unlink()
            raise HubError(
                400,
                f"The content has {size} bytes and SHA-256 {digest.hexdigest()}; announced were "
                f"{upload.size} bytes and {upload.sha256}",
            )
        whole.replace(self.path(upload.sha256))

    def offer(self, sha256: str) -> str:
        """A key with which anybody may download an object."""
        key = secrets.token_urlsafe(16)
        self.downloads[key] = sha256
        return key

    def offered(self, key: str) -> str:
        """The object of a key; raises HubError (403) for an unknown one."""
        if key not in self.downloads:
            raise HubError(403, "The signature of this download is not valid")
        return self.downloads[key]

    def copy_in(self, source: Path, sha256: str) -> None:
        """Store a local file whose SHA-256 is known."""
        with source.open("rb") as file, self.path(sha256).open("wb") as target:
            for piece in _pieces(file):
                target.write(piece)

    def _part(self, key: str, part: int) -> Path:
        return self.root / "incoming" / f"{key}.{part}"


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_CHUNK):
        yield piece
