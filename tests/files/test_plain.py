"""Files that somebody else gave: plain ones are read, and no more of them than there can be."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from hubsplice.errors import OutputError
from hubsplice.files.plain import exists, is_folder, is_plain, open_plain, read_plain
from hubsplice.files.replacing import replace_file, require_inside


def test_a_plain_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_plain(tmp_path / "file") == read_plain(tmp_path / "link", 7) == b"content"
    with open_plain(tmp_path / "link") as file:
        assert file.read() == b"content"


def test_a_file_that_is_larger_than_allowed_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(10_000_000_000)
    with pytest.raises(OSError, match="has 10000000000 bytes, expected at most 67108864"):
        read_plain(tmp_path / "file")


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device", "link to a device"])
def test_what_is_no_plain_file_is_neither_opened_nor_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(path))
        case "folder":
            path.mkdir()
        case "device":
            path = Path("/dev/zero")
        case _:
            path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match=r"no plain file|Is a directory"):
        open_plain(path)
    assert not is_plain(path)


def test_a_name_that_no_file_can_have_is_an_error_of_the_file() -> None:
    with pytest.raises(OSError, match="NUL"):
        read_plain(Path("a\0b"))


def test_a_file_takes_the_place_of_a_link_and_not_of_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "card").symlink_to("precious")
    replace_file(tmp_path / "card", "new")
    assert (tmp_path / "card").read_text() == "new"
    assert not (tmp_path / "card").is_symlink()
    assert (tmp_path / "precious").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card", "precious"]


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "card").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        replace_file(tmp_path / "card", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["card"]


def test_what_a_killed_run_left_is_removed_and_what_a_live_one_writes_is_not(
    tmp_path: Path,
) -> None:
    card = tmp_path / "card"
    card.write_text("old")
    child = os.fork()
    if child == 0:
        # The rename is an audit event: the file is whole then, and not yet in its place.
        sys.addaudithook(
            lambda event, _: os.kill(os.getpid(), signal.SIGKILL) if event == "os.rename" else None
        )
        replace_file(card, "new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert card.read_text() == "old"
    (left,) = tmp_path.glob(".card.*")
    live, other = tmp_path / f".card.{'0' * 16}", tmp_path / ".card.notes"
    other.touch()
    with live.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        replace_file(card, "new")
        assert sorted(tmp_path.iterdir()) == sorted([card, live, other])
    assert card.read_text() == "new"
    replace_file(card, "newer")
    assert sorted(tmp_path.iterdir()) == sorted([card, other])
    assert not left.exists()


def test_a_filesystem_that_is_read_only_is_an_error_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match="card: cannot be written: Read-only file system"):
        replace_file(tmp_path / "card", "new")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_nothing(tmp_path: Path, name: str) -> None:
    assert not exists(tmp_path / name)
    assert not is_folder(tmp_path / name)
    with pytest.raises(OSError, match=r"NUL|too long"):
        read_plain(tmp_path / name)


def test_nothing_is_written_through_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "sub").symlink_to("..")
    (tmp_path / "folder" / "inner").symlink_to(".")
    require_inside(tmp_path / "folder", tmp_path / "folder" / "inner" / "file")
    require_inside(tmp_path / "folder", tmp_path / "folder" / "new" / "file")
    with pytest.raises(OutputError, match="leads out of"):
        require_inside(tmp_path / "folder", tmp_path / "folder" / "sub" / "file")
