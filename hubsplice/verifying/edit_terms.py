"""Which of a manifest's terms belong to one edit of the recipe."""

from __future__ import annotations

from collections.abc import Sequence

from hubsplice.checkpoint.manifest import TermRecord


def terms_of_first_edit(terms: Sequence[TermRecord]) -> int:
    """How many of the first terms are of one edit; there is one at least.

    An edit may be several terms, which stand beside each other under labels of their own. A recipe
    may have the same edit twice: its label then comes again.
    """
    count = 1
    while (
        count < len(terms)
        and terms[count].edit == terms[0].edit
        and terms[count].label != terms[0].label
    ):
        count += 1
    return count
