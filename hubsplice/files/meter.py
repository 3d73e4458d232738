"""How much is done, for whoever wants to know, counted up from its parts."""

from __future__ import annotations

from collections.abc import Callable


def meter(total: int, on_done: Callable[[int, int], None]) -> Callable[[int], None]:
    """A function that is told of each part, and adds them up.

    Args:
        total: how much there is.
        on_done: told how much is done, which is never more than there is, of how much.
    """
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        on_done(min(done, total), total)

    return add
