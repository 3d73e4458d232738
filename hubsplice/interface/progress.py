"""Where progress goes: a terminal, a notebook, a function of the caller's, or nowhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hubsplice.rendering.notebook import in_notebook, show_in_notebook
from hubsplice.terminal import Progress, show_progress

ProgressChoice = bool | Progress
"""True shows bars in a terminal or a notebook, False shows none, and a function is told."""


@contextmanager
def reporting(choice: ProgressChoice) -> Iterator[Progress]:
    """What a long step reports to; at the end the bars are finished."""
    notebook = in_notebook()
    if not isinstance(choice, bool):
        yield choice
    elif not choice:
        with _downloads_shown(False):
            yield _silent
    else:
        with (
            _downloads_shown(notebook or sys.stderr.isatty()),
            show_in_notebook() if notebook else show_progress() as report,
        ):
            yield report


def _silent(_step: str, _done: int, _total: int) -> None:
    pass


@contextmanager
def _downloads_shown(shown: bool) -> Iterator[None]:
    """Bars of the Hub's client, which are global: they are left as they were found."""
    if shown:
        yield
        return
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
