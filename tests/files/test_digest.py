"""Digests of files that are computed once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hubsplice.files import digest as digest_module
from hubsplice.files.digest import digest_bytes, digest_file, digest_once, known_digest
from hubsplice.files.unchanged import status_of


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read."""
    found: list[Path] = []

    def counted(path: Path) -> object:
        found.append(path)
        return digest_file(path)

    monkeypatch.setattr(digest_module, "digest_file", counted)
    return found


def old(path: Path, content: bytes) -> Path:
    """A file that nobody has written to for a while, as far as it can be made one."""
    path.write_bytes(content)
    os.utime(path, (time.time() - 60,) * 2)
    return path


def test_a_file_is_read_once_until_it_changes(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_module, "_SETTLED_SECONDS", -1.0)
    path = old(tmp_path / "a", b"first")
    assert [digest_once(path) for _ in range(3)] == [digest_bytes(b"first")] * 3
    assert known_digest(path.stat()) == digest_bytes(b"first")
    assert read == [path]
    before = status_of(path)
    # The same size and the same time, as `cp -p` would leave them.
    old(path, b"other")
    os.utime(path, ns=(0, before[3] if before else 0))
    assert digest_once(path) == digest_bytes(b"other")
    assert len(read) == 2


def test_the_digest_of_a_new_file_is_not_remembered(tmp_path: Path, read: list[Path]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"first")
    assert digest_once(path) == digest_once(path) == digest_bytes(b"first")
    assert len(read) == 2
