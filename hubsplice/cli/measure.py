"""`hubsplice measure`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubsplice.cli.app import AsJson, NoCache, RequireFidelity, SplicedFolder, apply_no_cache
from hubsplice.terminal import print_content, print_json


def measure(
    folder: SplicedFolder,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="MODEL",
            help="The base model, if the checkpoint was made from a local folder.",
            show_default=False,
        ),
    ] = None,
    carrier: Annotated[
        str | None,
        typer.Option(metavar="DIR|REPO", help="For an adapter: its carrier.", show_default=False),
    ] = None,
    require_fidelity: RequireFidelity = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Measure a built checkpoint or adapter again.

    Compares it with its hook, and rewrites its report and its card.
    """
    apply_no_cache(no_cache)
    from hubsplice.interface.measure import measure as measure_folder

    report = measure_folder(folder, base=base, carrier=carrier, require_fidelity=require_fidelity)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print_content(report.content())
