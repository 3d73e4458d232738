"""Where streams of a text are put while others are computed: memory, or a file if they outgrow it.

A build holds some fourteen copies of a text's streams. Where those would take most of the memory
that is free, each is a memory-mapped file in the folder of kept work: the system writes it out and
reads it again as it needs the memory. The files have no names, so that nothing is left of them at
the end, whatever the end is.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryFile

import torch
from torch import Tensor

from hubsplice.errors import OutputError
from hubsplice.files.space import full_disk
from hubsplice.streams.kept import FOLDER, kept_folder
from hubsplice.streams.room import free_main_memory

COPIES = 14
"""How many copies of a text's streams a build holds, the temporary ones with them."""

_SHARE_OF_FREE = 0.5


@dataclass(frozen=True)
class Aside:
    """Where the streams of one text are put.

    Attributes:
        in_files: whether they are in files.
    """

    in_files: bool

    @staticmethod
    def of(stream_bytes: int) -> Aside:
        """The place for streams of which one copy takes so many bytes."""
        return Aside(COPIES * stream_bytes > _SHARE_OF_FREE * free_main_memory())

    def put(self, h: Tensor, over: Tensor | None = None, *, copy: bool = False) -> Tensor:
        """Put a tensor aside, on the CPU.

        Args:
            h: the tensor.
            over: one that was put aside before, of the same shape, and is of no use any more.
            copy: whether values that stay in memory are copied, since `h` will be written over.

        Returns:
            The same values. Where they stay in memory and are there already it is the same tensor,
            unless a copy is asked for.

        Raises:
            OutputError: the disk is full, or the file can't be written.
        """
        if not self.in_files:
            return h.to("cpu", copy=copy)
        target = _mapped(h.shape, h.dtype) if over is None else over
        return target.copy_(h)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts that were put aside, along the first dimension; raises as `put` does."""
        if not self.in_files:
            return torch.cat(list(parts))
        length = sum(len(part) for part in parts)
        found = _mapped((length, *parts[0].shape[1:]), parts[0].dtype)
        start = 0
        for part in parts:
            found[start : start + len(part)] = part
            start += len(part)
        return found


def _mapped(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor whose memory is a file without a name."""
    count = prod(shape)
    if not count:
        return torch.empty(tuple(shape), dtype=dtype)
    size, folder = count * dtype.itemsize, kept_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            _take_room(file.fileno(), size)
            content = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise _explained(error, folder, size) from None
    return torch.frombuffer(content, dtype=dtype, count=count).reshape(tuple(shape))


def _take_room(descriptor: int, size: int) -> None:
    # Where there is no room for what is written into a mapping, the process is killed.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def _explained(error: OSError, folder: Path, size: int) -> OutputError:
    full = full_disk(error, folder, size) if folder.is_dir() else None
    what = str(full) if full else f"{folder}: cannot be written: {error.strerror}"
    return OutputError(
        f"{what}. The streams of the text outgrow the memory and are put there: read fewer tokens, "
        f"or name a folder on another disk in {FOLDER}"
    )
