"""What the command line prints: tables and JSON on stdout, progress and warnings on stderr.

Everything is made visible on its way, whoever wrote it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hubsplice.rendering.content import Part, Table
from hubsplice.visible import visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_WORTH_A_LINE = 1.0

# A long step reports its name, how much is done, and how much there is. What follows a colon in
# the name may change while it lasts.
Progress = Callable[[str, int, int], None]


def print_json(data: Any) -> None:
    """Print one JSON document on stdout."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    print(visible_json(text))  # noqa: T201


def print_line(text: str) -> None:
    """Print a line of a result on stdout."""
    print(visible(text))  # noqa: T201


def print_error(message: str) -> None:
    """Print why a command failed on stderr."""
    print(visible(f"error: {message}"), file=sys.stderr)  # noqa: T201


def print_warning(message: str) -> None:
    """Print on stderr what the user should know about a command that succeeds."""
    print(visible(f"warning: {message}"), file=sys.stderr)  # noqa: T201


def print_note(message: str) -> None:
    """Print on stderr what explains a result."""
    print(visible(message), file=sys.stderr)  # noqa: T201


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Print a table of text on stdout; cells are never markup."""
    print_content([Table.of_text(tuple(columns), tuple(map(tuple, rows)), title)])


def print_content(content: Iterable[Part]) -> None:
    """Print what a result says on stdout."""
    from rich.console import Console

    from hubsplice.rendering.drawing import as_text, drawn

    console = Console()
    if console.is_terminal:
        console.print(drawn(content), crop=False)
    else:
        # rich fills its lines with spaces, which a file or a pipe keeps.
        print(as_text(content))  # noqa: T201


def width() -> int:
    """How many columns of text stdout has."""
    from rich.console import Console

    return Console().width


@contextmanager
def live_content() -> Iterator[Callable[[Iterable[Part]], None] | None]:
    """What is shown in place while it grows; None where stdout is no terminal."""
    from rich.console import Console
    from rich.live import Live

    from hubsplice.rendering.drawing import drawn

    console = Console()
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, refresh_per_second=8, vertical_overflow="visible") as live:
        yield lambda content: live.update(drawn(content))


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Bars on stderr, one per step; lines where stderr is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(console) as report:
            yield report
    else:
        lines = _Lines()
        try:
            yield lines.report
        finally:
            lines.end_step()


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    from rich.progress import (
        BarColumn,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    steps: dict[str, TaskID] = {}
    bars = Bars(
        TextColumn("{task.description}", markup=False),
        # In rich's own style, a bar that is not full is as red as an error.
        BarColumn(complete_style="cyan"),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )

    def report(step: str, done: int, total: int) -> None:
        step = visible(step)
        name, _, _ = step.partition(": ")
        if name not in steps:
            steps[name] = bars.add_task(step)
        bars.update(steps[name], description=step, completed=done, total=total)

    with bars:
        yield report
        # What ends well is done, also where a step turned out to have less to do.
        for task in bars.tasks:
            bars.update(task.id, completed=task.total)


class _Lines:
    """A line as a step begins, one now and then while it lasts, and how long it took."""

    def __init__(self) -> None:
        self._step: str | None = None
        self._began = self._shown = 0.0

    def report(self, step: str, done: int, total: int) -> None:
        """Say what a step is at, unless that was said a moment ago."""
        name, _, _ = step.partition(": ")
        now = time.monotonic()
        if name != self._step:
            self.end_step()
            self._step, self._began, self._shown = name, now, now
            print_note(step)
        elif now - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = now
            print_note(f"{step}{_how_far(done, total, now - self._began)}")

    def end_step(self) -> None:
        """Say how long the step took, unless that is no time."""
        took = time.monotonic() - self._began
        if self._step is not None and took >= _SECONDS_WORTH_A_LINE:
            print_note(f"{self._step}: took {duration(took)}")
        self._step = None


def _how_far(done: int, total: int, seconds: float) -> str:
    if not total:
        return ""
    left = f", about {duration(seconds * (total - done) / done)} left" if 0 < done < total else ""
    return f" ({done / total:.0%}{left})"


def duration(seconds: float) -> str:
    """A time in words: `40 s`, `5 min`, `3.2 h`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if seconds < 100 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.3g} h"
