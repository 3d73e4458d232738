"""Reading a file that the user named: a plain one, or a pipe, as shells make of `<(command)`."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path

from hubsplice.files.plain import LARGEST_TEXT, read_plain

LONGEST_SILENCE = 30.0
"""Seconds to wait for more to come through a pipe."""

_PART = 1 << 16


def is_pipe(path: Path) -> bool:
    """Whether `path` is a pipe."""
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def read_named(path: Path, largest: int = LARGEST_TEXT) -> bytes:
    """The content of a plain file, or what comes through a pipe until its writers are done.

    Only for what the user himself named: somebody else's folder may hold a pipe that nobody writes.

    Raises:
        OSError: of `read_plain`; or more than `largest` bytes come, or nothing for a long time.
    """
    if not is_pipe(path):
        return read_plain(path, largest)
    # Opened without waiting, since a pipe with a name may have no writer yet.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _read(descriptor, path, largest)
    finally:
        os.close(descriptor)


def _read(descriptor: int, path: Path, largest: int) -> bytes:
    data = bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        if not poll.poll(1000 * LONGEST_SILENCE):
            raise OSError(
                errno.ETIMEDOUT,
                f"nothing came through this pipe for {LONGEST_SILENCE:g} seconds; give a file",
                os.fspath(path),
            )
        part = os.read(descriptor, _PART)
        if not part:
            return bytes(data)
        data += part
        if len(data) > largest:
            raise OSError(
                errno.EINVAL,
                f"more than {largest} bytes came through this pipe, expected at most that",
                os.fspath(path),
            )
