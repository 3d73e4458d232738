"""Reads and writes past the page cache, and on filesystems that have nothing else."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubsplice.files.uncached import UncachedFile, read_uncached

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
    assert cached(path) == 0


PAGES = BLOCK // mmap.PAGESIZE


def cached(path: Path) -> int:
    """How many of the file's first pages the kernel holds.

    Asked with mincore: a read that may not wait starts reading ahead, and finds what it started
    where the disk is quick.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), BLOCK, access=mmap.ACCESS_COPY) as pages:
        view = (ctypes.c_char * BLOCK).from_buffer(pages)
        resident = (ctypes.c_ubyte * PAGES)()
        failed = libc.mincore(ctypes.byref(view), ctypes.c_size_t(BLOCK), resident)
        del view
    assert not failed, os.strerror(ctypes.get_errno())
    return sum(page & 1 for page in resident)


def evict(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: Path, offset: int) -> bytes:
    buffer, content = memoryview(bytearray(BLOCK)), b""
    with path.open("rb", buffering=0) as file:
        while count := read_uncached(file.fileno(), buffer, offset + len(content)):
            content += buffer[:count]
    return content


@pytest.mark.parametrize("offset", [0, 1, 4096, BLOCK + 1])
def test_reads_at_any_place(path: Path, offset: int) -> None:
    content = random.Random(0).randbytes(3 * BLOCK + 5)
    path.write_bytes(content)
    evict(path)
    assert read(path, offset) == content[offset:]


def test_reads_leave_the_cache_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(random.Random(0).randbytes(2 * BLOCK))
    assert cached(path) == PAGES
    with path.open("rb") as file:
        os.fsync(file.fileno())
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, 0x80)
        except OSError:
            pytest.skip("the system cannot read without keeping what it read")
    read(path, 0)
    assert cached(path) == PAGES
    # The kernel frees what it can free at once: not what something else holds just then.
    assert any(leaves_nothing(path) for _ in range(20))


def leaves_nothing(path: Path) -> bool:
    evict(path)
    read(path, 0)
    return cached(path) == 0


def test_a_full_disk() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file:
        uncached = UncachedFile(file.fileno())
        with pytest.raises(OSError, match="No space left"):
            uncached.write(memoryview(mmap.mmap(-1, BLOCK)), 0)
