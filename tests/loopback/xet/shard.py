"""The shard: which chunks a xorb has, and which ranges of them make up a file.

A shard is a header, a section of files, a section of xorbs and an optional footer. Everything but
the footer comes in records of 48 bytes, 32 of which are a hash.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.loopback.xet.hashes import hash_bytes, hash_text

_TAG = b"HFRepoMetaData\0" + bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
_HEADER = struct.Struct("<32s2Q")
_FOOTER = struct.Struct("<9Q32s2Q48x4Q")
_RECORD_BYTES = 48
_BOOKEND = b"\xff" * 32 + bytes(16)
_VERIFIED = 1 << 31
_WITH_METADATA = 1 << 30


@dataclass(frozen=True)
class Term:
    """A part of a file: the chunks `first` to `last` (exclusive) of a xorb, unpacked `size` bytes.

    `verification` is the hash over the chunks' hashes.
    """

    xorb: str
    size: int
    first: int
    last: int
    verification: str


@dataclass(frozen=True)
class FileInfo:
    """A file as the terms that make it up. Hashes are in the protocol's text form."""

    hash: str
    terms: tuple[Term, ...]
    sha256: str | None

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(term.size for term in self.terms)


@dataclass(frozen=True)
class XorbInfo:
    """A xorb as (hash, uncompressed bytes) of its chunks, and the bytes it takes when stored."""

    hash: str
    chunks: tuple[tuple[str, int], ...]
    stored_size: int

    @property
    def size(self) -> int:
        """The uncompressed bytes of its chunks."""
        return sum(size for _, size in self.chunks)


@dataclass(frozen=True)
class Shard:
    """What an upload registers: files, and the xorbs that are new."""

    files: tuple[FileInfo, ...]
    xorbs: tuple[XorbInfo, ...]


def parse_shard(body: bytes) -> Shard:
    """Read a shard, with or without a footer. Raises ValueError where it is none."""
    if len(body) < _HEADER.size:
        raise ValueError(f"a shard begins with a header of {_HEADER.size} bytes")
    tag, version, footer_size = _HEADER.unpack_from(body)
    if tag != _TAG or version != 2:
        raise ValueError("this is not a shard of version 2")
    if footer_size > len(body) - _HEADER.size:
        raise ValueError(f"a footer of {footer_size} bytes doesn't fit a shard of {len(body)}")
    records = _Records(body[_HEADER.size : len(body) - footer_size])
    shard = Shard(tuple(_files(records)), tuple(_xorbs(records)))
    if footer_size == 0 and records.left:
        raise ValueError(f"{records.left} bytes follow the last section")
    return shard


def serialize_deduplication_shard(
    xorbs: Sequence[XorbInfo], *, created: int, expires: int
) -> bytes:
    """The shard that answers a query for a chunk: xorbs to deduplicate against, and no files.

    Times are in seconds since 1970.
    """
    body = _HEADER.pack(_TAG, 2, _FOOTER.size) + _BOOKEND
    xorb_section = len(body)
    for xorb in xorbs:
        counts = (0, len(xorb.chunks), xorb.size, xorb.stored_size)
        body += hash_bytes(xorb.hash) + struct.pack("<4I", *counts)
        offset = 0
        for text, size in xorb.chunks:
            body += hash_bytes(text) + struct.pack("<2I8x", offset, size)
            offset += size
    body += _BOOKEND
    end = len(body)
    sections = (_HEADER.size, xorb_section)
    no_lookup_tables = (end, 0) * 3
    no_key = bytes(32)  # The chunks' hashes are given as they are.
    sizes = (sum(xorb.stored_size for xorb in xorbs), 0, sum(xorb.size for xorb in xorbs))
    return body + _FOOTER.pack(
        1, *sections, *no_lookup_tables, no_key, created, expires, *sizes, end
    )


class _Records:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._body) - self._at

    def take(self, count: int) -> Iterator[tuple[str, bytes]]:
        """The next records as (hash, the other 16 bytes)."""
        if count * _RECORD_BYTES > self.left:
            raise ValueError(f"{count} records are announced, and {self.left} bytes are left")
        end = self._at + count * _RECORD_BYTES
        for at in range(self._at, end, _RECORD_BYTES):
            yield hash_text(self._body[at : at + 32]), self._body[at + 32 : at + _RECORD_BYTES]
        self._at = end

    def headers(self) -> Iterator[tuple[str, bytes]]:
        """The records that begin an entry of this section, up to its bookend."""
        while True:
            (header,) = self.take(1)
            if header == (hash_text(_BOOKEND[:32]), _BOOKEND[32:]):
                return
            yield header


def _files(records: _Records) -> Iterator[FileInfo]:
    for text, numbers in records.headers():
        flags, count = struct.unpack("<2I8x", numbers)
        if not flags & _VERIFIED:
            raise ValueError(f"the file {text} has no verification entries")
        segments = [(xorb, *struct.unpack("<4I", rest)) for xorb, rest in records.take(count)]
        verifications = [verification for verification, _ in records.take(count)]
        metadata = list(records.take(1 if flags & _WITH_METADATA else 0))
        terms = tuple(
            Term(xorb, size, first, last, verification)
            for (xorb, _flags, size, first, last), verification in zip(
                segments, verifications, strict=True
            )
        )
        yield FileInfo(text, terms, metadata[0][0] if metadata else None)


def _xorbs(records: _Records) -> Iterator[XorbInfo]:
    for text, numbers in records.headers():
        _flags, count, _size, stored_size = struct.unpack("<4I", numbers)
        chunks = tuple(
            (chunk, struct.unpack("<4xI8x", rest)[0]) for chunk, rest in records.take(count)
        )
        yield XorbInfo(text, chunks, stored_size)
