"""One reading of a file for several consumers, each in a thread of its own."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from hubsplice.files.uncached import read_uncached

BLOCK = 1 << 21
"""Bytes that a consumer gets at once."""

# Enough for one to be read into while each consumer works on another.
_BUFFERS = 4

Consumer = Callable[[memoryview, int], object]


def stream(
    source: int,
    *,
    prefix: bytes,
    offset: int,
    count: int,
    consumers: Sequence[Consumer],
    on_read: Callable[[int], None],
) -> None:
    """Hand every consumer the same bytes in the same order: a prefix, then a part of a file.

    Reading and all consumers work at the same time, in a memory of four blocks.

    Args:
        source: a file descriptor.
        prefix: what comes first.
        offset: where to begin reading.
        count: how many bytes to read.
        consumers: called with a block and its position among all bytes. Every block has `BLOCK`
            bytes, but the last; all lie at a page's boundary in memory; none may be kept.
        on_read: called in this thread with the size of each block that all consumers are done
            with.

    Raises:
        EOFError: the source ends early.
        Exception: whatever a consumer raises.
    """
    end = len(prefix) + count
    free = deque(memoryview(mmap.mmap(-1, BLOCK)) for _ in range(_BUFFERS))
    pending: deque[tuple[memoryview, int, list[Future[object]]]] = deque()

    def finish_oldest() -> None:
        buffer, size, jobs = pending.popleft()
        for job in jobs:
            job.result()
        free.append(buffer)
        on_read(size)

    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in consumers]
        for position in range(0, end, BLOCK):
            if not free:
                finish_oldest()
            buffer = free.popleft()
            block = buffer[: min(BLOCK, end - position)]
            head = prefix[position : position + len(block)]
            block[: len(head)] = head
            _read(source, block[len(head) :], offset + position + len(head) - len(prefix))
            jobs = [
                thread.submit(consume, block, position)
                for thread, consume in zip(threads, consumers, strict=True)
            ]
            pending.append((buffer, len(block), jobs))
        while pending:
            finish_oldest()


def _read(source: int, target: memoryview, offset: int) -> None:
    done = 0
    while done < len(target):
        count = read_uncached(source, target[done:], offset + done)
        if not count:
            raise EOFError(f"the source ends at byte {offset + done}")
        done += count
