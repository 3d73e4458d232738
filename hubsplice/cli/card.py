"""`hubsplice card`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubsplice.cli.app import SplicedFolder
from hubsplice.errors import ConflictError
from hubsplice.terminal import print_line, print_note


def card(
    folder: SplicedFolder,
    rewrite: Annotated[
        bool, typer.Option("--rewrite", help="Write it over a card that was edited by hand.")
    ] = False,
) -> None:
    """Write the model card of a built checkpoint again."""
    from hubsplice.card import edited_card, write_card

    if not rewrite and (diff := edited_card(folder)) is not None:
        print_note(diff)
        raise ConflictError(
            f"{folder / 'README.md'}: it was edited by hand, as shown above; --rewrite writes it "
            "anew. What is named in the recipe as card.before and card.after is always kept"
        )
    print_line(str(write_card(folder)))
