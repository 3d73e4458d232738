"""Files that must stay as they are while something is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubsplice.errors import CheckpointError
from hubsplice.files.unchanged import status_of, unchanged


def test_what_tells_that_a_file_changed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"first")
    before = status_of(path)
    (tmp_path / "link").hardlink_to(path)
    assert status_of(path) == before
    (tmp_path / "new").write_bytes(b"first")
    (tmp_path / "new").replace(path)
    assert status_of(path) != before
    path.unlink()
    assert status_of(path) is None


def test_what_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"first")
    with unchanged([path]):
        path.read_bytes()
    changed = pytest.raises(CheckpointError, match="a: the file changed while it was in use")
    with changed, unchanged([path]):
        path.write_bytes(b"longer")
    with pytest.raises(CheckpointError, match="a: the file is gone while"), unchanged([path]):
        path.unlink()
    with pytest.raises(ZeroDivisionError), unchanged([path]):
        path.write_bytes(b"new" * (1 // 0))
