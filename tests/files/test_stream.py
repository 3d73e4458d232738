"""One reading for several consumers."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from hubsplice.files.stream import BLOCK, Consumer, stream

CONTENT = random.Random(0).randbytes(6 * BLOCK + 7)


def run(path: Path, prefix: bytes, offset: int, count: int, *consumers: Consumer) -> list[int]:
    sizes: list[int] = []
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        stream(
            file.fileno(),
            prefix=prefix,
            offset=offset,
            count=count,
            consumers=consumers,
            on_read=sizes.append,
        )
    return sizes


def collect(target: bytearray) -> Consumer:
    def consume(block: memoryview, position: int) -> None:
        assert position == len(target)
        target.extend(block)

    return consume


@pytest.mark.parametrize("prefix", [0, 1, 1000, BLOCK, 2 * BLOCK + 1])
@pytest.mark.parametrize("count", [0, 1, BLOCK - 1000, BLOCK, 5 * BLOCK + 3])
def test_every_consumer_gets_everything_in_order(tmp_path: Path, prefix: int, count: int) -> None:
    head, offset = CONTENT[-prefix:] if prefix else b"", 5
    first, second = bytearray(), bytearray()
    sizes = run(tmp_path / "a", head, offset, count, collect(first), collect(second))
    assert first == head + CONTENT[offset : offset + count]
    assert second == first
    assert sum(sizes) == len(first)
    assert all(size == BLOCK for size in sizes[:-1])


def failing_at(at: int, error: Exception) -> Callable[[memoryview, int], None]:
    def consume(block: memoryview, position: int) -> None:
        if position >= at:
            raise error

    return consume


@pytest.mark.parametrize("at", [0, 5 * BLOCK])
def test_an_error_of_a_consumer(tmp_path: Path, at: int) -> None:
    error = OSError("broken")
    with pytest.raises(OSError, match="broken") as raised:
        run(tmp_path / "a", b"", 0, len(CONTENT), failing_at(at, error), collect(bytearray()))
    assert raised.value is error


def test_a_source_that_ends_early(tmp_path: Path) -> None:
    with pytest.raises(EOFError, match=f"ends at byte {len(CONTENT)}"):
        run(tmp_path / "a", b"", 3, len(CONTENT), collect(bytearray()))
