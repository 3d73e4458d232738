"""`hubsplice inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubsplice.cli.app import AsJson, Revision, SplicedModel
from hubsplice.errors import CheckpointError
from hubsplice.terminal import print_content, print_json


def inspect(
    model: SplicedModel,
    revision: Revision = None,
    sae: Annotated[
        str | None,
        typer.Option(
            "--sae",
            metavar="SAE",
            help="Also say which features of this SAE the edits are nearest to; it is named as for "
            "`hubsplice find`.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what inserted layers do, from their weights.

    Shows for every splice how many neurons are used, and for every bend, jump and line of its edits
    the strength and threshold that the weights hold. Exits with 4 if the weights hold anything
    else. Needs no base; from a repository, it downloads only the bytes of inserted layers.
    """
    from hubsplice.interface.inspect import inspect as inspect_model

    result = inspect_model(model, revision=revision, sae=sae)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_content(list(result.content()))
    if not result.agrees:
        raise CheckpointError(f"{result.model}: the inserted layers are not what they claim to be")
