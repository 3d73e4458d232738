"""`hubsplice reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubsplice.cli.app import AsJson, Base, Revision, SplicedModel
from hubsplice.errors import DifferentError
from hubsplice.terminal import print_content, print_json


def reproduce(
    model: SplicedModel,
    base: Base = None,
    revision: Revision = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--source",
            metavar="PATH",
            help="A local SAE, vector, probe or text that the recipe names, or a folder that holds "
            "some of them; they are known by their SHA-256. Can be given more than once.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="A new folder for the rebuilt inserted tensors, config.json, index and edit. "
            "[default: a temporary one]",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build a spliced checkpoint again from its recipe, and compare.

    Takes the recipe in reproduce/, with the base, SAEs and texts at the recorded revisions and the
    same number of threads. Grades: same bytes; same within rounding, where the environment differs;
    or different, which exits with 10. The base's own tensors are for verify.
    """
    from hubsplice.interface.reproduce import reproduce as reproduce_model

    result = reproduce_model(
        model, base=base, revision=revision, sources=source or (), output=output
    )
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_content(result.content())
    if result.grade == "different":
        raise DifferentError(f"{result.model}: {result.verdict}")
