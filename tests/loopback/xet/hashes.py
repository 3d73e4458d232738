"""The keyed BLAKE3 hashes of the Xet protocol: of chunks, xorbs, files and terms.

Hashes are handled in the protocol's text form, 64 hexadecimal digits: four little-endian 64-bit
integers, each written as a number.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

from blake3 import blake3

_CHUNK_KEY = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
_NODE_KEY = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
_TERM_KEY = bytes.fromhex("7f1857d6ce56ed66127ff913e7a5c3f3a4cd26d5b5db49e64124987f28fb94c3")
_FILE_KEY = bytes(32)

EMPTY = "0" * 64
_TEXT = re.compile(r"[0-9a-f]{64}")


def hash_text(raw: bytes) -> str:
    """The text of 32 raw bytes."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def hash_bytes(text: str) -> bytes:
    """The 32 raw bytes of a hash's text. Raises ValueError for another text."""
    if not _TEXT.fullmatch(text):
        raise ValueError(f"{text!r} is not a hash of 64 lowercase hexadecimal digits")
    return struct.pack("<4Q", *(int(text[i : i + 16], 16) for i in range(0, 64, 16)))


def chunk_hash(content: bytes) -> str:
    """The hash of a chunk's uncompressed content."""
    return _keyed(content, _CHUNK_KEY)


def xorb_hash(chunks: Sequence[tuple[str, int]]) -> str:
    """The root of the Merkle tree over (hash, uncompressed bytes) of a xorb's chunks."""
    nodes = list(chunks)
    while len(nodes) > 1:
        merged = []
        while nodes:
            cut = _branches(nodes)
            merged.append(_merge(nodes[:cut]))
            nodes = nodes[cut:]
        nodes = merged
    return nodes[0][0] if nodes else EMPTY


def file_hash(chunks: Sequence[tuple[str, int]]) -> str:
    """The hash of a file of these (hash, uncompressed bytes) of chunks, in order."""
    return _keyed(hash_bytes(xorb_hash(chunks)), _FILE_KEY) if chunks else EMPTY


def term_hash(chunks: Sequence[str]) -> str:
    """The hash by which a shard proves that its client had the chunks of a term."""
    return _keyed(b"".join(map(hash_bytes, chunks)), _TERM_KEY)


def _keyed(content: bytes, key: bytes) -> str:
    return hash_text(blake3(content, key=key).digest())


def _branches(nodes: Sequence[tuple[str, int]]) -> int:
    """How many nodes the first parent has: up to nine, cut where a hash divides by four."""
    for i in range(2, min(len(nodes), 9)):
        if int(nodes[i][0][48:], 16) % 4 == 0:
            return i + 1
    return min(len(nodes), 9)


def _merge(nodes: Sequence[tuple[str, int]]) -> tuple[str, int]:
    lines = "".join(f"{text} : {size}\n" for text, size in nodes)
    return _keyed(lines.encode(), _NODE_KEY), sum(size for _, size in nodes)
