"""The serialized xorb: chunks one after the other, each compressed behind a header of 8 bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import lz4.frame  # type: ignore[import-untyped]
import numpy as np

HEADER_BYTES = 8
MAXIMUM_CHUNK_BYTES = 128 * 1024
MAXIMUM_XORB_BYTES = 64 * 1024 * 1024


class Compression(IntEnum):
    """How a chunk is stored."""

    NONE = 0
    LZ4 = 1
    BYTE_GROUPING_4_LZ4 = 2


@dataclass(frozen=True)
class Chunk:
    """Where a chunk lies in its xorb: `start` is its header's offset, sizes are in bytes."""

    start: int
    stored_size: int
    compression: Compression
    size: int

    @property
    def end(self) -> int:
        """The offset past the stored content."""
        return self.start + HEADER_BYTES + self.stored_size


def parse_xorb(body: bytes) -> tuple[Chunk, ...]:
    """The chunks of a serialized xorb. Raises ValueError where it is none."""
    if not body:
        raise ValueError("a xorb has at least one chunk")
    chunks: list[Chunk] = []
    start = 0
    while start < len(body):
        chunk = _parse_header(body[start : start + HEADER_BYTES], start)
        if chunk.end > len(body):
            raise ValueError(f"the chunk at {start} ends at {chunk.end}, past the xorb's end")
        chunks.append(chunk)
        start = chunk.end
    # The client fills a xorb up to this size before compression, and headers come on top.
    if (size := sum(chunk.size for chunk in chunks)) > MAXIMUM_XORB_BYTES:
        raise ValueError(
            f"the chunks of a xorb have at most {MAXIMUM_XORB_BYTES} bytes, not {size}"
        )
    return tuple(chunks)


def unpack_chunk(stored: bytes, chunk: Chunk) -> bytes:
    """The content of a chunk from its stored bytes, the header left out.

    Raises ValueError where they don't unpack to the size that the header gives.
    """
    if chunk.compression is Compression.NONE:
        content = stored
    else:
        # One byte more than expected is enough to notice a longer content without unpacking it.
        try:
            content = lz4.frame.LZ4FrameDecompressor().decompress(stored, chunk.size + 1)
        except (RuntimeError, EOFError) as error:
            raise ValueError(f"the chunk at {chunk.start} is not LZ4: {error}") from error
    if len(content) != chunk.size:
        raise ValueError(f"the chunk at {chunk.start} doesn't unpack to {chunk.size} bytes")
    if chunk.compression is Compression.BYTE_GROUPING_4_LZ4:
        return _interleave(content)
    return content


def _parse_header(header: bytes, start: int) -> Chunk:
    if len(header) < HEADER_BYTES:
        raise ValueError(f"the chunk header at {start} has {len(header)} of {HEADER_BYTES} bytes")
    if header[0] != 0:
        raise ValueError(f"the chunk at {start} is of version {header[0]}, not 0")
    chunk = Chunk(
        start=start,
        stored_size=int.from_bytes(header[1:4], "little"),
        compression=Compression(header[4]),
        size=int.from_bytes(header[5:8], "little"),
    )
    if not 0 < chunk.size <= MAXIMUM_CHUNK_BYTES:
        raise ValueError(f"the chunk at {start} has {chunk.size} bytes: 1 to {MAXIMUM_CHUNK_BYTES}")
    if not 0 < chunk.stored_size <= chunk.size:
        raise ValueError(f"the chunk at {start} of {chunk.size} bytes stores {chunk.stored_size}")
    return chunk


def _interleave(grouped: bytes) -> bytes:
    """Undo byte grouping: first all bytes of index 0 modulo 4, then those of index 1, and so on."""
    content = np.empty(len(grouped), np.uint8)
    groups = np.frombuffer(grouped, np.uint8)
    for i in range(4):
        size = len(content[i::4])
        content[i::4] = groups[:size]
        groups = groups[size:]
    return content.tobytes()
