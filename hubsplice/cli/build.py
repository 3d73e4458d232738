"""`hubsplice build`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hubsplice.cli.app import AsJson, NoCache, RecipePath, RequireFidelity, apply_no_cache
from hubsplice.cli.cost import print_cost
from hubsplice.cli.job import (
    Elsewhere,
    Flavor,
    Install,
    Namespace,
    On,
    Timeout,
    job_options,
    run_job,
)
from hubsplice.errors import RecipeError
from hubsplice.terminal import print_content, print_json, print_warning


def build(
    recipe: RecipePath,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="The folder to write, new or empty. A job needs none; if you name one, its result "
            "is downloaded there.",
            show_default=False,
        ),
    ] = None,
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
    on: On = None,
    flavor: Flavor = None,
    timeout: Timeout = None,
    namespace: Namespace = None,
    install: Install = None,
    repo_id: Annotated[
        str | None,
        typer.Option(
            "--repo-id",
            metavar="OWNER/NAME",
            help="The private repository in which a job stores its result.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the job, and start none.")
    ] = False,
    no_cache: NoCache = False,
    details: Annotated[
        bool, typer.Option("--details", help="Print all tables, and not a summary.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build a checkpoint from a recipe, and measure it.

    With --on hf-jobs a Hugging Face Job builds it and stores it in a private repository. Its log is
    shown on stderr, and its exit code is this command's.
    """
    apply_no_cache(no_cache)
    job = job_options(on, flavor=flavor, timeout=timeout, namespace=namespace, install=install)
    if job is not None:
        for name, given in {"--no-measure": not measure, "--hard-link": hard_link}.items():
            if given:
                raise RecipeError(f"{name}: a job has no such choice; leave it out, or --on")
        if repo_id is None:
            raise RecipeError("--repo-id: missing; name the repository that stores the result")
        from hubsplice.interface.publishing import PublishOptions

        options = PublishOptions(
            repo_id=repo_id,
            private=True,
            allow_failed=allow_failed,
            allow_misfit=allow_misfit,
            require_fidelity=require_fidelity,
            dry_run=dry_run,
        )
        run_job(recipe, options, job, as_json=as_json, output=output)
        return
    for name, given in {"--repo-id": repo_id is not None, "--dry-run": dry_run}.items():
        if given:
            raise RecipeError(f"{name}: it is for jobs; add --on {Elsewhere.HF_JOBS}")
    if output is None:
        raise typer.BadParameter(
            "missing; name the folder to write", param_hint="'--output' / '-o'"
        )
    from hubsplice.building.told import build_summary
    from hubsplice.interface.build import build as build_recipe

    result = build_recipe(
        recipe,
        output,
        require_fidelity=require_fidelity,
        measure=measure,
        hard_link=hard_link,
        allow_failed=allow_failed,
        allow_misfit=allow_misfit,
        on_cost=print_cost,
    )
    for warning in result.warnings if as_json else () if details else result.other_warnings:
        print_warning(warning)
    report = result.report
    if as_json:
        shown = report.model_dump(mode="json") if report else None
        amounts = [asdict(entry) for entry in result.amounts]
        print_json({"folder": str(result.folder), "report": shown, "amounts": amounts})
        return
    if details:
        print_content(result.content())
        return
    for warning in report.warnings if report else ():
        print_warning(warning)
    print_content(build_summary(result))
