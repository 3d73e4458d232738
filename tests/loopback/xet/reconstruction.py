"""Which chunks of which xorbs make up a range of a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tests.loopback.xet.shard import FileInfo
from tests.loopback.xet.xorb import Chunk


@dataclass(frozen=True)
class Piece:
    """The chunks `first` to `last` (exclusive) of a xorb, unpacked `size` bytes."""

    xorb: str
    first: int
    last: int
    size: int


@dataclass(frozen=True)
class Fetch:
    """The chunks `first` to `last` (exclusive) of a xorb, serialized at `start` to `end`."""

    xorb: str
    first: int
    last: int
    start: int
    end: int


@dataclass(frozen=True)
class Reconstruction:
    """The pieces of a range, which begins `skipped` bytes into the first, and what to fetch.

    Every piece lies in one fetch, and no two fetches overlap: the client looks a piece up among
    the fetches by where it begins.
    """

    skipped: int
    pieces: tuple[Piece, ...]
    fetches: tuple[Fetch, ...]


def reconstruct(
    file: FileInfo, chunks: Callable[[str], Sequence[Chunk]], start: int, end: int
) -> Reconstruction:
    """The bytes `start` to `end` (exclusive) of a file; `chunks` gives the chunks of a xorb."""
    skipped = 0
    pieces: list[Piece] = []
    position = 0
    for term in file.terms:
        sizes = (chunk.size for chunk in chunks(term.xorb)[term.first : term.last])
        bounds = list(accumulate(sizes, initial=position))
        position = bounds[-1]
        wanted = [i for i, bound in enumerate(bounds[:-1]) if bound < end and bounds[i + 1] > start]
        if not wanted:
            continue
        first, last = wanted[0], wanted[-1] + 1
        if not pieces:
            skipped = start - bounds[first]
        size = bounds[last] - bounds[first]
        pieces.append(Piece(term.xorb, term.first + first, term.first + last, size))
    return Reconstruction(skipped, tuple(pieces), tuple(_fetches(pieces, chunks)))


def _fetches(pieces: Iterable[Piece], chunks: Callable[[str], Sequence[Chunk]]) -> Iterator[Fetch]:
    ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for piece in pieces:
        ranges[piece.xorb].append((piece.first, piece.last))
    for xorb, wanted in ranges.items():
        for first, last in _merged(wanted):
            yield Fetch(xorb, first, last, chunks(xorb)[first].start, chunks(xorb)[last - 1].end)


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in order, those that overlap or touch made one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged
