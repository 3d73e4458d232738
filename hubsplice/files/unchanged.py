"""Files that must stay as they are while something is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hubsplice.errors import CheckpointError


@contextmanager
def unchanged(paths: Iterable[Path]) -> Iterator[None]:
    """Refuse what was made of files that somebody wrote to, or took away, while the context lasted.

    Raises:
        CheckpointError: with the first such file.
    """
    before = {path: status_of(path) for path in paths}
    yield
    for path, status in before.items():
        now = status_of(path)
        if now != status:
            what = "is gone" if now is None else "changed"
            raise CheckpointError(f"{path.resolve()}: the file {what} while it was in use")


def status_of(path: Path) -> tuple[int, ...] | None:
    """What changes when somebody writes to a file or puts another in its place; None if it's gone.

    Another link to it changes nothing.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
