"""Writes past the page cache, and on filesystems that have nothing else."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubsplice.checkpoint.uncached import UncachedFile

BLOCK = 1 << 16


@pytest.fixture(params=["disk", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "disk":
        yield tmp_path / "file"
        return
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        pytest.skip("there is no /dev/shm")
    path = memory / f"hubsplice-test-{os.getpid()}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def write(path: Path, content: bytes, *, shift: int = 0) -> None:
    """Write in blocks from page-aligned memory, or `shift` bytes behind a page's boundary."""
    buffer = memoryview(mmap.mmap(-1, BLOCK + shift))[shift:]
    with path.open("xb", buffering=0) as file:
        uncached = UncachedFile(file.fileno())
        for position in range(0, len(content), BLOCK):
            piece = content[position : position + BLOCK]
            buffer[: len(piece)] = piece
            uncached.write(buffer[: len(piece)], position)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, BLOCK, 3 * BLOCK + 1, 3 * BLOCK + 5000])
def test_every_size(path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    write(path, content)
    assert path.read_bytes() == content


def test_memory_that_the_disk_cannot_read_from_directly(path: Path) -> None:
    content = random.Random(0).randbytes(3 * BLOCK)
    write(path, content, shift=1)
    assert path.read_bytes() == content


def test_the_cache_is_bypassed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("xb") as file:
        try:
            fcntl.fcntl(file.fileno(), fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            pytest.skip("the filesystem cannot do without the cache")
    path.unlink()
    write(path, random.Random(0).randbytes(2 * BLOCK))
    # The kernel is asked for what it can give without waiting for the disk.
    with path.open("rb", buffering=0) as file, pytest.raises(BlockingIOError):
        os.preadv(file.fileno(), [bytearray(BLOCK)], 0, os.RWF_NOWAIT)


def test_a_full_disk() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file:
        uncached = UncachedFile(file.fileno())
        with pytest.raises(OSError, match="No space left"):
            uncached.write(memoryview(mmap.mmap(-1, BLOCK)), 0)
