"""`hubsplice build`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubsplice.cli.app import (
    AllowMisfit,
    AsJson,
    HardLink,
    NoCache,
    RecipePath,
    RequireFidelity,
    apply_no_cache,
)
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
from hubsplice.terminal import print_content, print_json, print_note, print_warning

if TYPE_CHECKING:
    from hubsplice.building.build import BuildResult


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
    hard_link: HardLink = False,
    allow_failed: Annotated[
        bool,
        typer.Option("--allow-failed", help="Keep a result that misses the required fidelity."),
    ] = False,
    allow_misfit: AllowMisfit = False,
    adapter: Annotated[
        bool,
        typer.Option("--adapter", help="Build a LoRA adapter for a carrier, not a checkpoint."),
    ] = False,
    carrier: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|REPO",
            help="The carrier that the adapter is for; `hubsplice carrier` makes one.",
            show_default=False,
        ),
    ] = None,
    strengths: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N]",
            help="Build an adapter for each of these strengths, which take the place of the "
            "recipe's in their units, in folders of their own under the output.",
            show_default=False,
        ),
    ] = None,
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
    """Build a checkpoint or an adapter from a recipe, and measure it.

    With --on hf-jobs a Hugging Face Job builds it and stores it in a private repository. Its log is
    shown on stderr, and its exit code is this command's.
    """
    apply_no_cache(no_cache)
    if adapter or carrier is not None or strengths is not None:
        for name, given in {
            "--carrier, --strengths": not adapter,
            "--on, --repo-id, --dry-run": on is not None or repo_id is not None or dry_run,
            "--hard-link": hard_link,
        }.items():
            if given:
                what = "of adapters; add --adapter" if not adapter else "not of adapters"
                raise RecipeError(f"{name}: {what}")
        if carrier is None:
            raise RecipeError("--adapter: for which carrier? Give --carrier")
        _adapters(
            recipe,
            _required(output),
            carrier,
            strengths,
            as_json,
            details,
            require_fidelity=require_fidelity,
            measure=measure,
            allow_failed=allow_failed,
            allow_misfit=allow_misfit,
        )
        return
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
    output = _required(output)
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
    if as_json:
        print_json(_as_data(result))
    else:
        _show(result, details=details)


def _required(output: Path | None) -> Path:
    if output is None:
        raise typer.BadParameter(
            "missing; name the folder to write", param_hint="'--output' / '-o'"
        )
    return output


def _adapters(
    recipe: Path,
    output: Path,
    carrier: str,
    strengths: str | None,
    as_json: bool,
    details: bool,
    **options: Any,
) -> None:
    from hubsplice.interface.adapters import build_adapter
    from hubsplice.interface.recipes import load_recipe
    from hubsplice.recipe.strengths import with_strengths

    whole = load_recipe(recipe)
    wanted = (
        {output: whole}
        if strengths is None
        else {
            output / f"strength-{name}": with_strengths(whole, number)
            for name, number in _numbers(strengths).items()
        }
    )
    done = []
    for folder, one in wanted.items():
        result = build_adapter(one, folder, carrier=carrier, **options)
        if as_json:
            done.append(_as_data(result))
        else:
            _show(result, details=details)
    if as_json:
        print_json(done[0] if strengths is None else done)
    else:
        names = ",".join(str(folder) for folder in wanted)
        print_note(f"Next: hubsplice serve {carrier} --adapters {names}")


def _numbers(strengths: str) -> dict[str, str]:
    """The numbers of `--strengths`, by what folders are called after them."""
    found: dict[str, str] = {}
    for text in strengths.split(","):
        try:
            number = float(text)
        except ValueError:
            raise RecipeError(
                f"--strengths: found {strengths!r}, expected numbers such as 2,4,8"
            ) from None
        if f"{number:g}" in found:
            raise RecipeError(f"--strengths: {number:g} is given twice")
        found[f"{number:g}"] = repr(number)
    return found


def _as_data(result: BuildResult) -> dict[str, Any]:
    for warning in result.warnings:
        print_warning(warning)
    shown = result.report.model_dump(mode="json") if result.report else None
    return {
        "folder": str(result.folder),
        "report": shown,
        "amounts": [asdict(entry) for entry in result.amounts],
        "conditions": [asdict(entry) for entry in result.conditions],
    }


def _show(result: BuildResult, *, details: bool) -> None:
    from hubsplice.building.told import build_summary

    if details:
        print_content(result.content())
        return
    for warning in (*result.other_warnings, *(result.report.warnings if result.report else ())):
        print_warning(warning)
    print_content(build_summary(result))
