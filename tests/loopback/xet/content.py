"""What was uploaded: xorbs and shards as files on disk, indexed in memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.loopback.xet.hashes import chunk_hash, file_hash, hash_bytes, term_hash, xorb_hash
from tests.loopback.xet.reconstruction import Reconstruction, reconstruct
from tests.loopback.xet.shard import FileInfo, Shard, XorbInfo, parse_shard
from tests.loopback.xet.xorb import HEADER_BYTES, Chunk, parse_xorb, unpack_chunk


@dataclass(frozen=True)
class _Xorb:
    info: XorbInfo
    chunks: tuple[Chunk, ...]


class ContentStore:
    """The uploaded content. Its methods may be called from several threads.

    `received_bytes` counts the bodies of xorbs and shards as they arrive, those that break off or
    are refused too; `xorbs_received` the xorbs that came whole and valid, known ones too.
    """

    def __init__(self, root: Path) -> None:
        self.received_bytes = 0
        self.xorbs_received = 0
        self._xorb_folder = root / "xorbs"
        self._shard_folder = root / "shards"
        self._xorbs: dict[str, _Xorb] = {}
        self._xorb_of_chunk: dict[str, str] = {}
        self._files: dict[str, FileInfo] = {}
        self._by_sha256: dict[str, str] = {}
        self._lock = threading.Lock()
        for folder in (self._xorb_folder, self._shard_folder):
            folder.mkdir(parents=True, exist_ok=True)
        for path in self._xorb_folder.glob("?" * 64):
            self._index_xorb(_check_xorb(path.name, path.read_bytes()))
        for path in self._shard_folder.glob("?" * 64):
            self._index_shard(parse_shard(path.read_bytes()))

    def count_received(self, size: int) -> None:
        """Add to the bytes received."""
        with self._lock:
            self.received_bytes += size

    def add_xorb(self, text: str, body: bytes) -> bool:
        """Keep a serialized xorb; whether it is new. Raises ValueError where it isn't that xorb."""
        xorb = _check_xorb(text, body)
        with self._lock:
            self.xorbs_received += 1
            is_new = text not in self._xorbs
        if is_new:
            _write(self._xorb_folder / text, body)
            self._index_xorb(xorb)
        return is_new

    def add_shard(self, body: bytes) -> bool:
        """Register the files of a shard; whether any is new.

        Raises ValueError where the body is no shard, it refers to what the store doesn't hold, or
        a hash in it isn't that of the content.
        """
        shard = parse_shard(body)
        for xorb in shard.xorbs:
            if self._xorb(xorb.hash).info.chunks != xorb.chunks:
                raise ValueError(f"the xorb {xorb.hash} has other chunks than the shard says")
        for file in shard.files:
            self._check_file(file)
        is_new = any(file.hash not in self._files for file in shard.files)
        _write(self._shard_folder / hashlib.sha256(body).hexdigest(), body)
        self._index_shard(shard)
        return is_new

    def by_sha256(self, sha256: str) -> str | None:
        """The Xet hash of the file registered with this SHA-256; None for an unknown one."""
        return self._by_sha256.get(sha256)

    def size(self, file_hash: str) -> int:
        """The bytes of a file. Raises KeyError for an unknown one."""
        return self._files[file_hash].size

    def read(self, file_hash: str) -> Iterator[bytes]:
        """The content of a file, chunk by chunk. Raises KeyError for an unknown one."""
        return self._read(self._files[file_hash])

    def reconstruct(self, file_hash: str, start: int, end: int) -> Reconstruction:
        """What makes up the bytes `start` to `end` (exclusive). Raises KeyError."""
        return reconstruct(
            self._files[file_hash], lambda xorb: self._xorbs[xorb].chunks, start, end
        )

    def xorb_path(self, text: str) -> Path:
        """The serialized xorb. Raises KeyError for an unknown one."""
        return self._xorb_folder / self._xorbs[text].info.hash

    def xorb_of_chunk(self, text: str) -> XorbInfo:
        """A registered xorb that has this chunk. Raises KeyError for an unknown chunk."""
        return self._xorbs[self._xorb_of_chunk[text]].info

    def _xorb(self, text: str) -> _Xorb:
        if text not in self._xorbs:
            raise ValueError(f"there is no xorb {text}")
        return self._xorbs[text]

    def _check_file(self, file: FileInfo) -> None:
        chunks: list[tuple[str, int]] = []
        for term in file.terms:
            known = self._xorb(term.xorb).info.chunks
            if not 0 <= term.first < term.last <= len(known):
                raise ValueError(
                    f"the xorb {term.xorb} has {len(known)} chunks, no {term.first} to {term.last}"
                )
            part = known[term.first : term.last]
            if term.size != sum(size for _, size in part):
                raise ValueError(f"a term of {file.hash} doesn't have {term.size} bytes")
            if term.verification != term_hash([text for text, _ in part]):
                raise ValueError(f"the verification of a term of {file.hash} failed")
            chunks += part
        if file_hash(chunks) != file.hash:
            raise ValueError(
                f"the chunks of the file {file.hash} have the hash {file_hash(chunks)}"
            )
        if file.sha256 is not None:
            digest = hashlib.sha256()
            for content in self._read(file):
                digest.update(content)
            if digest.hexdigest() != file.sha256:
                raise ValueError(f"the file {file.hash} doesn't have the SHA-256 {file.sha256}")

    def _read(self, file: FileInfo) -> Iterator[bytes]:
        for term in file.terms:
            with self.xorb_path(term.xorb).open("rb") as xorb:
                for chunk in self._xorbs[term.xorb].chunks[term.first : term.last]:
                    xorb.seek(chunk.start + HEADER_BYTES)
                    yield unpack_chunk(xorb.read(chunk.stored_size), chunk)

    def _index_xorb(self, xorb: _Xorb) -> None:
        with self._lock:
            self._xorbs[xorb.info.hash] = xorb

    def _index_shard(self, shard: Shard) -> None:
        with self._lock:
            for file in shard.files:
                self._files[file.hash] = file
                if file.sha256 is not None:
                    self._by_sha256[file.sha256] = file.hash
            for xorb in shard.xorbs:
                for text, _ in xorb.chunks:
                    self._xorb_of_chunk.setdefault(text, xorb.hash)


def _check_xorb(text: str, body: bytes) -> _Xorb:
    hash_bytes(text)
    chunks = parse_xorb(body)
    hashes = tuple(
        (chunk_hash(unpack_chunk(body[c.start + HEADER_BYTES : c.end], c)), c.size) for c in chunks
    )
    if xorb_hash(hashes) != text:
        raise ValueError(f"the xorb has the hash {xorb_hash(hashes)}, not {text}")
    return _Xorb(XorbInfo(text, hashes, len(body)), chunks)


def _write(path: Path, body: bytes) -> None:
    """Write a file that exists only when it is whole."""
    partial = path.with_name(f"{path.name}.{threading.get_ident()}")
    partial.write_bytes(body)
    partial.replace(path)
