"""`hubsplice edits`."""

from __future__ import annotations

from hubsplice.cli.app import AsJson
from hubsplice.terminal import print_json, print_table


def edits(as_json: AsJson = False) -> None:
    """List all kinds of edits, with their formulas."""
    from hubsplice.edits.registry import EDITS

    kinds = dict(EDITS.items())
    if as_json:
        print_json(
            [
                {"kind": kind, "summary": edit.summary, "formula": edit.formula}
                for kind, edit in kinds.items()
            ]
        )
        return
    print_table(
        ("kind", "what it does", "formula"),
        [(kind, edit.summary, edit.formula) for kind, edit in kinds.items()],
    )
