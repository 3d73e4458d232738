"""The checks of a verification as a table."""

from __future__ import annotations

from collections.abc import Iterable

from hubsplice.rendering.content import Table
from hubsplice.verifying.result import Check

_SHOWN = 10


def checks_table(checks: Iterable[Check], *, all_in: str) -> Table:
    """Each check, its outcome, and the first of its problems.

    Args:
        checks: in their order.
        all_in: what shows all problems.
    """
    rows = tuple(_row(check, all_in) for check in checks)
    return Table.of_text(("check", "", "what was found"), rows, "")


def _row(check: Check, all_in: str) -> tuple[str, str, str]:
    outcome = {True: "passed", False: "FAILED", None: "not made"}[check.passed]
    shown = check.problems[:_SHOWN]
    more = len(check.problems) - len(shown)
    lines = [check.detail, *shown, *([f"and {more} more ({all_in} shows all)"] if more else [])]
    return check.name, outcome, "\n".join(lines)
