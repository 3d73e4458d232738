"""One file in place of another, in a folder that somebody else may have filled."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from hubsplice.errors import OutputError
from hubsplice.files.plain import is_plain, open_plain
from hubsplice.files.space import full_disk


def replace_file(path: Path, text: str) -> None:
    """Write a text file, whatever is at its place: a link there is replaced, and not followed.

    The text goes to a fresh file beside it, of a name that nobody can have foreseen, which takes
    the place when it is whole. What a killed run left of that kind, the next one removes.

    Raises:
        OutputError: it can't be written; what was there is as it was.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _remove_leftovers(path)
        try:
            _write_new(unfinished, text.encode(), path)
        except OSError:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise full_disk(error, path.parent) or OutputError(
            f"{path}: cannot be written: {error.strerror}"
        ) from None


def _write_new(unfinished: Path, data: bytes, path: Path) -> None:
    # Exclusive creation follows no link, not even one that leads nowhere.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(unfinished, flags, 0o666), "wb") as file:
        with suppress(OSError):
            # Tells others that it is no leftover; some network filesystems have no locks.
            fcntl.flock(file, fcntl.LOCK_EX)
        file.write(data)
        file.flush()
        unfinished.replace(path)


def _remove_leftovers(path: Path) -> None:
    """Remove the unfinished files of runs that are dead: those whose lock is free."""
    ours = re.compile(re.escape(f".{path.name}.") + "[0-9a-f]{16}")
    for found in sorted(path.parent.iterdir()):
        if ours.fullmatch(found.name) is None or found.is_symlink() or not is_plain(found):
            continue
        with suppress(OSError), open_plain(found) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.unlink()


def require_inside(folder: Path, path: Path) -> None:
    """Refuse to write where a link leads out of a folder.

    Args:
        folder: where everything is to stay.
        path: a file in it, or in folders in it, which need not exist.

    Raises:
        OutputError: one of the folders on the way is a link to elsewhere.
    """
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise OutputError(f"{path}: a link leads out of {folder}; nothing is written there")
