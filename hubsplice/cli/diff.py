"""`hubsplice diff`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubsplice.cli.app import AsJson
from hubsplice.terminal import print_content, print_json

_WHAT = "A recipe, or a spliced checkpoint: its folder, or its Hub repository (also NAME@REVISION)."


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=_WHAT, show_default=False)],
    b: Annotated[
        str, typer.Argument(metavar="B", help="Another one of the same kind.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Compare two recipes, or two checkpoints.

    Of recipes: base, edits, text and precision, in words. Of checkpoints also what strengths came
    to, every inserted tensor, the verdicts, and the environments. Exits with 0 either way.
    """
    from hubsplice.interface.diff import diff as compare

    result = compare(a, b)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_content(result.content())
