"""`hubsplice merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubsplice.cli.app import AsJson, HardLink, NewFolder, Revision
from hubsplice.terminal import print_content, print_json


def merge(
    carrier: Annotated[
        str,
        typer.Argument(
            metavar="CARRIER",
            help="A carrier: its folder, or its Hub repository.",
            show_default=False,
        ),
    ],
    adapter: Annotated[
        Path,
        typer.Argument(
            metavar="ADAPTER",
            help="A folder that `hubsplice build --adapter` wrote.",
            show_default=False,
        ),
    ],
    output: NewFolder,
    revision: Revision = None,
    hard_link: HardLink = False,
    as_json: AsJson = False,
) -> None:
    """Merge an adapter into its carrier.

    Gives the checkpoint that a direct build of the recipe gives, or says what differs.
    """
    from hubsplice.interface.adapters import merge as merge_adapter

    result = merge_adapter(carrier, adapter, output, carrier_revision=revision, hard_link=hard_link)
    if as_json:
        print_json({"folder": str(result.folder), "differs": list(result.differs)})
    else:
        print_content(result.content())
