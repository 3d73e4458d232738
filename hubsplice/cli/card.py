"""`hubsplice card`."""

from __future__ import annotations

from hubsplice.cli.app import SplicedFolder
from hubsplice.terminal import print_line


def card(folder: SplicedFolder) -> None:
    """Write the model card of a built checkpoint again."""
    from hubsplice.card import write_card

    print_line(str(write_card(folder)))
