"""Moving bytes between files inside the kernel, sharing blocks where the filesystem can."""

from __future__ import annotations

import errno
import fcntl
import os

_PAGE = 4096
_KERNEL_CHUNK = 1 << 26
_BUFFER = 1 << 23

# Linux's ioctl number for "make this file share all blocks of that one".
_FICLONE = 0x40049409

_NOT_HERE = frozenset(
    {
        errno.EXDEV,
        errno.ENOSYS,
        errno.EOPNOTSUPP,
        errno.EINVAL,
        errno.ENOTTY,
        errno.EPERM,
        errno.ETXTBSY,
    }
)


def clone_file(source: int, destination: int) -> bool:
    """Make the empty file `destination` share every block of `source`.

    Returns:
        False where the filesystem cannot; nothing has been written then.

    Raises:
        OSError: a full disk, or a failing one.
    """
    try:
        fcntl.ioctl(destination, _FICLONE, source)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return False
        raise
    return True


def copy_range(
    source: int,
    destination: int,
    *,
    offset: int,
    destination_offset: int,
    count: int,
) -> None:
    """Copy `count` bytes between two open files.

    The kernel copies, and shares whole blocks where the filesystem can and both offsets agree
    modulo 4096; where it can't, the bytes go through a buffer of 8 MiB.

    Args:
        source: a file descriptor.
        destination: a file descriptor.
        offset: where to begin reading.
        destination_offset: where to begin writing.
        count: in bytes.

    Raises:
        EOFError: the source ends early.
        OSError: a full disk, or a failing one.
    """
    shift = destination_offset - offset
    position, end = offset, offset + count
    in_kernel = hasattr(os, "copy_file_range")
    while position < end:
        # Blocks are shared only from a block's boundary on, so the odd head goes by itself.
        head = -position % _PAGE
        length = min(end - position, head or _KERNEL_CHUNK)
        if in_kernel:
            copied = _copy_in_kernel(source, destination, position, position + shift, length)
            in_kernel = copied > 0
        else:
            data = os.pread(source, min(length, _BUFFER), position)
            if not data:
                raise EOFError(f"the source ends at byte {position}, expected {end}")
            copied = os.pwrite(destination, data, position + shift)
        position += copied


def _copy_in_kernel(
    source: int, destination: int, offset: int, destination_offset: int, count: int
) -> int:
    """Bytes copied; 0 where the kernel can't, or claims that the source has ended."""
    try:
        return os.copy_file_range(source, destination, count, offset, destination_offset)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return 0
        raise
