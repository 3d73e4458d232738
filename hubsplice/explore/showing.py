"""What a function shows while it works, as an iterator that can be closed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

Shown = TypeVar("Shown")


class _StoppedError(Exception):
    """Nobody wants to see more."""


def as_shown(work: Callable[[Callable[[Shown], None]], None]) -> Generator[Shown, None, None]:
    """What a function shows while it works; what it has shown meanwhile is left out but the last.

    Where the iterator is closed, the function's next showing raises, so that it ends.
    """
    shown: queue.Queue[Shown | None] = queue.Queue()
    stopped = threading.Event()
    failed: list[BaseException] = []

    def show(one: Shown) -> None:
        if stopped.is_set():
            raise _StoppedError
        shown.put(one)

    def run() -> None:
        try:
            work(show)
        except _StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised where the iterator is read
            failed.append(error)
        finally:
            shown.put(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (one := shown.get()) is not None:
            ended = False
            while not shown.empty():
                later = shown.get()
                if later is None:
                    ended = True
                    break
                one = later
            yield one
            if ended:
                break
    finally:
        stopped.set()
    thread.join()
    if failed:
        raise failed[0]
