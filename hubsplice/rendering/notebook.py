"""Progress in a notebook: one line of HTML for each step, and nothing once all is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from hubsplice.visible import visible

_SECONDS_BETWEEN = 0.2


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


@contextmanager
def show_in_notebook() -> Iterator[Callable[[str, int, int], None]]:
    """Bars below the running cell; gives the function that is told how far a step is."""
    from IPython.display import HTML, display

    steps: dict[str, tuple[int, int]] = {}
    shown: Any = None
    last = 0.0

    def report(step: str, done: int, total: int) -> None:
        nonlocal shown, last
        steps[step] = (done, total)
        now = time.monotonic()
        if done < total and now - last < _SECONDS_BETWEEN:
            return
        last = now
        lines = HTML("".join(_bar(name, *counts) for name, counts in steps.items()))
        if shown is None:
            shown = display(lines, display_id=True)
        else:
            shown.update(lines)

    try:
        yield report
    finally:
        if shown is not None:
            shown.update(HTML(""))


def _bar(step: str, done: int, total: int) -> str:
    name = escape(visible(step))
    return f'<div><progress value="{done}" max="{max(total, 1)}"></progress> {name}</div>'
