"""`hubsplice card`."""

from __future__ import annotations

import typer

from hubsplice.cli.app import SplicedFolder


def card(folder: SplicedFolder) -> None:
    """Write the model card of a built checkpoint again."""
    from hubsplice.card import write_card

    typer.echo(str(write_card(folder)))
