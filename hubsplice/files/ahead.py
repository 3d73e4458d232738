"""Parts of files that are wanted soon: the system reads them while something else is computed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Tensors in a file lie side by side, but for what aligns them.
_GAP = 4096


@dataclass(frozen=True, order=True)
class FilePart:
    """A part of a file.

    Attributes:
        path: the file.
        start: its first byte.
        end: the byte after its last one.
    """

    path: Path
    start: int
    end: int

    def expect(self) -> None:
        """Have the system read it, without waiting; where that can't be had, nothing is lost."""
        if not hasattr(os, "posix_fadvise"):
            return
        with suppress(OSError), self.path.open("rb") as file:
            os.posix_fadvise(
                file.fileno(), self.start, self.end - self.start, os.POSIX_FADV_WILLNEED
            )


def joined(parts: Iterable[FilePart]) -> Iterator[FilePart]:
    """The same bytes in as few parts as there can be, in the order of the files."""
    last: FilePart | None = None
    for part in sorted(parts):
        if last is not None and part.path == last.path and part.start <= last.end + _GAP:
            last = FilePart(last.path, last.start, max(last.end, part.end))
            continue
        if last is not None:
            yield last
        last = part
    if last is not None:
        yield last
