"""Reading and writing files past the page cache."""

from __future__ import annotations

import errno
import fcntl
import os

# A multiple of what any common disk writes at once.
_ALIGNMENT = 4096

# Linux's flag, from 6.14 on, for "free the cache of what this call read, unless it was there".
_DONT_CACHE = 0x80


def read_uncached(descriptor: int, target: memoryview, offset: int) -> int:
    """Read from the page cache what it holds, and add nothing to it where the system can.

    Weights that are read once are not worth the memory, nor the time that finding it takes.

    Args:
        descriptor: of an open file.
        target: filled from its beginning on.
        offset: where to begin reading.

    Returns:
        How many bytes were read; 0 at the end of the file.

    Raises:
        OSError: a failing disk.
    """
    try:
        return os.preadv(descriptor, [target], offset, _DONT_CACHE)
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    return os.preadv(descriptor, [target], offset)


class UncachedFile:
    """A new file that is written from its beginning to its end, past the page cache.

    Weights that are written once are not worth the memory that the base's are cached in, and
    copying them into the cache takes longer than the disk does. Filesystems that can't do without
    the cache get an ordinary write.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._direct = _bypass_cache(descriptor, True)

    def write(self, block: memoryview, position: int) -> None:
        """Write a block that lies at a page's boundary in memory.

        Args:
            block: of a multiple of 4096 bytes, but for the last one.
            position: where it goes, a multiple of 4096.

        Raises:
            OSError: a full disk, or a failing one.
        """
        done = self._write_direct(block, position) if self._direct else 0
        while done < len(block):
            done += os.pwrite(self._descriptor, block[done:], position + done)

    def _write_direct(self, block: memoryview, position: int) -> int:
        """Bytes written; fewer than all where the rest has to go through the cache."""
        whole, done = len(block) - len(block) % _ALIGNMENT, 0
        try:
            while done < whole:
                done += os.pwrite(self._descriptor, block[done:whole], position + done)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        if done < len(block):
            self._direct = _bypass_cache(self._descriptor, False)
        return done


def _bypass_cache(descriptor: int, bypass: bool) -> bool:
    """Whether writes now bypass the cache: never on systems or filesystems that can't."""
    direct: int = getattr(os, "O_DIRECT", 0)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | direct if bypass else flags & ~direct)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return bypass and direct != 0
