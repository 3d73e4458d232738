"""What a build takes, on the terminal before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubsplice.terminal import print_note

if TYPE_CHECKING:
    from hubsplice.compiling.cost import BuildCost


def print_cost(cost: BuildCost) -> None:
    """Print what a build takes, and what to do where that is much."""
    print_note(str(cost))
    for advice in cost.advice:
        print_note(advice)
