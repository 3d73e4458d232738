"""`hubsplice publish`."""

from __future__ import annotations

import enum
import shlex
import sys
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubsplice.cli.app import AllowMisfit, AsJson, RequireFidelity
from hubsplice.cli.cost import print_cost
from hubsplice.cli.job import Flavor, Install, Namespace, On, Timeout, job_options, run_job
from hubsplice.cli.publication import print_plan, print_publication
from hubsplice.terminal import print_content, print_note, print_warning

if TYPE_CHECKING:
    from hubsplice.building.build import BuildResult
    from hubsplice.interface.publishing import Publishing


class CardChoice(enum.StrEnum):
    """What becomes of a card that was edited by hand."""

    KEEP = "keep"
    REWRITE = "rewrite"


def publish(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE|FOLDER",
            help="A recipe, which is built first, or a folder that `hubsplice build` wrote.",
            show_default=False,
        ),
    ],
    repo_id: Annotated[
        str | None,
        typer.Option(
            "--repo-id",
            metavar="OWNER/NAME",
            help="The repository on the Hub. [default: publish.repo_id in the recipe]",
            show_default=False,
        ),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option("--tag", help="Tag the published commit.", show_default=False),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public",
            help="The visibility of a new repository. One that is there already must have it.",
            show_default=False,
        ),
    ] = None,
    pull_request: Annotated[
        bool, typer.Option("--pr", help="Open a pull request, or update the open one.")
    ] = False,
    license_id: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="ID",
            help="Declare a licence that is not the base's, for example apache-2.0.",
            show_default=False,
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Replace the files of a repository that hubsplice did not publish."
        ),
    ] = False,
    card: Annotated[
        CardChoice | None,
        typer.Option(
            "--card",
            help="What becomes of a README.md that was edited by hand: published as it is, or "
            "written anew. On a terminal you are asked.",
            show_default=False,
        ),
    ] = None,
    allow_failed: Annotated[
        bool,
        typer.Option("--allow-failed", help="Publish a result that misses the required fidelity."),
    ] = False,
    allow_misfit: AllowMisfit = False,
    require_fidelity: RequireFidelity = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, and send nothing.")
    ] = False,
    on: On = None,
    flavor: Flavor = None,
    timeout: Timeout = None,
    namespace: Namespace = None,
    install: Install = None,
    as_json: AsJson = False,
) -> None:
    """Publish a recipe or a built folder on the Hugging Face Hub.

    Makes one commit and one tag. Builds and measures a recipe first, in a folder under builds/
    that a second run finds again. The Hub checks the card before anything is sent. Afterwards the
    checksums of all files are compared. If a run is interrupted, the same command finishes it.

    With --on hf-jobs all of this happens in a Hugging Face Job. Its log is shown on stderr, and its
    exit code is this command's.
    """
    from hubsplice.interface.publishing import Publishing, PublishOptions

    job = job_options(on, flavor=flavor, timeout=timeout, namespace=namespace, install=install)
    options = PublishOptions(
        repo_id=repo_id,
        tag=tag,
        private=private,
        pull_request=pull_request,
        license_id=license_id,
        replace=replace,
        card=None if card is None else card.value,
        allow_failed=allow_failed,
        allow_misfit=allow_misfit,
        require_fidelity=require_fidelity,
        dry_run=dry_run,
    )
    if job is not None:
        run_job(source, options, job, as_json=as_json)
        return
    publishing = Publishing.open(source, options, progress=True)
    if publishing.found:
        print_note(
            f"found the recipe built in {publishing.folder}; remove that folder to build it again"
        )
    elif not publishing.is_built:
        _print_built(publishing.build(print_cost), as_json=as_json)
    if card is None and not as_json and sys.stdin.isatty() and publishing.is_built:
        publishing = _asked(publishing)
    built, plan = publishing.plan()
    for warning in plan.warnings:
        print_warning(warning)
    if dry_run or not as_json:
        print_plan(plan, built.folder, as_json=as_json)
    if dry_run:
        if not as_json:
            arguments = options.arguments(publishing.target.repo_id)
            command = shlex.join(["hubsplice", "publish", str(source), *arguments])
            print_note(f"nothing was sent; next: {command}")
        return
    publication = publishing.publish(built, plan)
    assert publication.published is not None
    for note in publication.published.notes:
        print_warning(note)
    print_publication(publication, as_json=as_json)


def _asked(publishing: Publishing) -> Publishing:
    """The same, knowing what becomes of a card that was edited by hand."""
    from hubsplice.card import edited_card

    diff = edited_card(publishing.folder)
    if diff is None:
        return publishing
    print_note(f"{publishing.folder / 'README.md'} was edited by hand:\n{diff}")
    choice = typer.prompt("keep it, or rewrite it?", type=CardChoice, err=True)
    return replace_fields(
        publishing, target=replace_fields(publishing.target, card=CardChoice(choice).value)
    )


def _print_built(result: BuildResult, *, as_json: bool) -> None:
    from hubsplice.building.told import measured_summary

    for warning in result.warnings if as_json else result.other_warnings:
        print_warning(warning)
    if result.report is not None and not as_json:
        for warning in result.report.warnings:
            print_warning(warning)
        print_content(measured_summary(result.report))
