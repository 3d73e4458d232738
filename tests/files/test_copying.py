"""Copies inside the kernel, across filesystems, and on one that shares blocks."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from hubsplice.files.copying import clone_file, copy_range

SIZE = 3 * 4096 + 77


def copy(source: Path, destination: Path, offset: int, at: int, count: int) -> None:
    with source.open("rb") as original, destination.open("w+b") as target:
        copy_range(
            original.fileno(),
            target.fileno(),
            offset=offset,
            destination_offset=at,
            count=count,
        )


def check_ranges(source: Path, destination: Path) -> None:
    content = random.Random(0).randbytes(SIZE)
    source.write_bytes(content)
    for offset, at in ((0, 0), (1, 1), (1, 8), (4095, 4095), (4096, 0), (77, 4096 + 77), (SIZE, 3)):
        count = SIZE - offset
        copy(source, destination, offset, at, count)
        assert destination.read_bytes()[at:] == content[offset:]


def test_on_one_filesystem(tmp_path: Path) -> None:
    check_ranges(tmp_path / "a", tmp_path / "b")


def test_across_filesystems(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is not a second filesystem here")
    source = memory / f"hubsplice-test-{os.getpid()}"
    try:
        check_ranges(source, tmp_path / "b")
        with source.open("rb") as a, (tmp_path / "b").open("w+b") as b:
            assert clone_file(a.fileno(), b.fileno()) is False
    finally:
        source.unlink()


def test_a_source_that_ends_early(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    with pytest.raises(EOFError, match="ends at byte 3, expected 5"):
        copy(tmp_path / "a", tmp_path / "b", 0, 0, 5)


def test_blocks_are_shared(reflink_folder: Path) -> None:
    size = 64 << 20
    source = reflink_folder / "a"
    source.write_bytes(random.Random(0).randbytes(1 << 20) * 64)
    os.sync()
    before = shutil.disk_usage(reflink_folder).used
    copy(source, reflink_folder / "b", 1000, 1000, size - 1000)
    copy(source, reflink_folder / "c", 1000, 4096 + 1000, size - 1000)
    with source.open("rb") as a, (reflink_folder / "d").open("w+b") as d:
        assert clone_file(a.fileno(), d.fileno())
    os.sync()
    assert shutil.disk_usage(reflink_folder).used - before < size // 8
    assert (reflink_folder / "b").read_bytes()[1000:] == source.read_bytes()[1000:]
    assert (reflink_folder / "d").read_bytes() == source.read_bytes()
