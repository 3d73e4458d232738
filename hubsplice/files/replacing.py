"""One file in place of another, in a folder that somebody else may have filled."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from hubsplice.errors import OutputError
from hubsplice.files.space import full_disk


def replace_file(path: Path, text: str) -> None:
    """Write a text file, whatever is at its place: a link there is replaced, and not followed.

    The text goes to a fresh file beside it, of a name that nobody can have foreseen, which takes
    the place when it is whole.

    Raises:
        OutputError: it can't be written; what was there is as it was.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            _write_new(unfinished, text.encode())
            unfinished.replace(path)
        except OSError:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise full_disk(error, path.parent) or OutputError(
            f"{path}: cannot be written: {error.strerror}"
        ) from None


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


def _write_new(path: Path, data: bytes) -> None:
    # Exclusive creation follows no link, not even one that leads nowhere.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
