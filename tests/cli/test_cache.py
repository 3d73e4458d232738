"""`hubsplice cache`: what is kept is shown, and cleared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command


def test_kept_work_is_shown_and_cleared(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBSPLICE_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("HUBSPLICE_CACHE_LIMIT", "20GB")
    assert "0 streams, 0 bytes of at most 20 GB" in command("cache").out
    (tmp_path / "kept").mkdir()
    stream, other = (tmp_path / "kept" / name for name in ("a.safetensors", "mine.txt"))
    stream.write_bytes(b"x" * 5000)
    other.write_text("not of hubsplice")
    shown = command("cache")
    assert "1 stream, 5000 bytes" in shown.out
    assert "--clear" in shown.out
    found = json.loads(command("cache", "--clear", "--json").out)
    assert found == {
        "folder": str(tmp_path / "kept"),
        "files": 0,
        "bytes": 0,
        "limit_bytes": 20_000_000_000,
        "cleared_bytes": 5000,
    }
    assert other.exists()
    monkeypatch.setenv("HUBSPLICE_CACHE_LIMIT", "much")
    wrong = command("cache")
    assert wrong.code != 0
    assert "HUBSPLICE_CACHE_LIMIT" in wrong.err
