"""The author's claims as a table: a line for all that is not shown for one reason."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hubsplice.rendering.content import Table
from hubsplice.verifying.statements.ledger import AuthorClaim

_SHOWN = 20
_NOTHING = ("null", "[]", "{}")


def claims_table(claims: Iterable[AuthorClaim], *, all_in: str) -> Table:
    """What the files say that was not shown, by file and reason.

    Args:
        claims: in their order. What says nothing is left out.
        all_in: what shows all of them, with what they say.
    """
    grouped: dict[tuple[str, str], dict[str, None]] = {}
    for claim in claims:
        if claim.stated not in _NOTHING:
            # One line for a field of every layer and edit.
            field = re.sub(r"\[\d+\]", "[…]", claim.field)
            grouped.setdefault((claim.file, claim.why), {})[field] = None
    return Table.of_text(
        ("the author's claims", "in", "why they are not shown"),
        tuple(
            (_listed(list(fields), all_in), file, why) for (file, why), fields in grouped.items()
        ),
        "",
    )


def _listed(fields: list[str], all_in: str) -> str:
    more = len(fields) - _SHOWN
    rest = [f"and {more} more ({all_in} shows all)"] if more > 0 else []
    return "\n".join([*fields[:_SHOWN], *rest])
