"""`hubsplice build`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hubsplice.cli.app import AsJson, NoCache, RecipePath, RequireFidelity, apply_no_cache
from hubsplice.terminal import print_content, print_json, print_line, print_warning


def build(
    recipe: RecipePath,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="The folder to write, new or empty."),
    ],
    require_fidelity: RequireFidelity = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure the fidelity of the result.")
    ] = True,
    hard_link: Annotated[
        bool,
        typer.Option(
            "--hard-link",
            help="Hard-link weight files that do not change, instead of copying them. A later "
            "write into one of the two files then changes both.",
        ),
    ] = False,
    allow_failed: Annotated[
        bool,
        typer.Option("--allow-failed", help="Keep a result that misses the required fidelity."),
    ] = False,
    allow_misfit: Annotated[
        bool,
        typer.Option(
            "--allow-misfit",
            help="Use an SAE that explains nothing of the model's residual stream.",
        ),
    ] = False,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Build a checkpoint from a recipe, and measure it."""
    apply_no_cache(no_cache)
    from hubsplice.interface.build import build as build_recipe

    result = build_recipe(
        recipe,
        output,
        require_fidelity=require_fidelity,
        measure=measure,
        hard_link=hard_link,
        allow_failed=allow_failed,
        allow_misfit=allow_misfit,
    )
    for warning in result.warnings if as_json else result.other_warnings:
        print_warning(warning)
    report = result.report
    if as_json:
        shown = report.model_dump(mode="json") if report else None
        amounts = [asdict(entry) for entry in result.amounts]
        print_json({"folder": str(result.folder), "report": shown, "amounts": amounts})
        return
    if report:
        print_content(report.content())
    else:
        for found in result.amounts:
            print_line(str(found))
    print_line(str(result.folder))
