"""`hubsplice publish`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubsplice import __version__
from hubsplice.cli.app import AsJson, RequireFidelity
from hubsplice.cli.publication import print_plan, print_published
from hubsplice.errors import HubError, RecipeError
from hubsplice.terminal import print_content, print_note, print_warning, show_progress

if TYPE_CHECKING:
    from hubsplice.hub.built import BuiltFolder
    from hubsplice.hub.plan import Target
    from hubsplice.recipe.models import Recipe


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
            help="The repository; the recipe's publish.repo_id where it is not given.",
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
            help="The visibility of a new repository; --private also refuses a public one.",
            show_default=False,
        ),
    ] = None,
    pull_request: Annotated[
        bool, typer.Option("--pr", help="Open a pull request, or update the one that is open.")
    ] = False,
    license_id: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="ID",
            help="Declare another licence than the base's, such as apache-2.0.",
            show_default=False,
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Publish over files that hubsplice did not publish."),
    ] = False,
    allow_failed: Annotated[
        bool,
        typer.Option("--allow-failed", help="Publish what missed the fidelity that it requires."),
    ] = False,
    require_fidelity: RequireFidelity = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent, and write nothing there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a recipe, or a built folder, on the Hugging Face Hub: one commit, and a tag.

    A recipe is built and measured first, in a folder under builds/ that a second run finds. The
    card is checked by the Hub before anything is sent,
    and the checksums afterwards. A run that was interrupted is finished by the same command.
    """
    recipe, folder = _source(source)
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from hubsplice.hub.failures import explained_errors
    from hubsplice.hub.plan import Target, make_publish_plan, require_agreement

    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi(library_name="hubsplice", library_version=__version__)
    asked = recipe.publish
    name = repo_id or asked.repo_id
    if name is None:
        raise RecipeError("publish.repo_id: missing; say where to publish there, or with --repo-id")
    with explained_errors(name):
        if not dry_run and get_token() is None:
            raise HubError("no token for the Hub: log in with `hf auth login`, or set HF_TOKEN")
        full_name = name if "/" in name else f"{api.whoami()['name']}/{name}"
    target = Target(
        repo_id=full_name,
        private=asked.private if private is None else private,
        require_private=private is True,
        tag=tag or asked.tag,
        pull_request=pull_request,
        license_id=license_id,
        replace=replace,
    )
    # What forbids publishing is better said before minutes of building.
    require_agreement(api, target)
    if folder is None:
        folder = _built(recipe, target, require_fidelity, as_json)
    built = _opened(folder, require_fidelity, allow_failed)
    with show_progress() as progress:
        plan = make_publish_plan(
            api,
            built,
            target,
            on_predicted=lambda done, total: progress("predicting the upload", done, total),
        )
    for warning in plan.warnings:
        print_warning(warning)
    if dry_run or not as_json:
        print_plan(plan, folder, as_json=as_json)
    if dry_run:
        return
    from hubsplice.hub.publish import publish as publish_plan

    published = publish_plan(api, plan)
    for note in published.notes:
        print_warning(note)
    print_published(published, plan, built, api.endpoint, as_json=as_json)


def _source(source: Path) -> tuple[Recipe, Path | None]:
    """The recipe, and the folder where it is built already."""
    from hubsplice.intervention.saved import RECIPE
    from hubsplice.recipe.reading import load_recipe

    if not source.is_dir():
        return load_recipe(source), None
    return load_recipe(source / RECIPE), source


def _built(
    recipe: Recipe,
    target: Target,
    require_fidelity: float | None,
    as_json: bool,
) -> Path:
    from hubsplice.hub.builds import build_place

    place = build_place(recipe, target.repo_id)
    if place.is_dir():
        print_note(f"found the recipe built in {place}; remove that folder to build it again")
        return place
    from hubsplice.building.build import build

    with show_progress() as progress:
        # A result that misses its requirement is kept: the plan refuses it, and it can be read.
        result = build(
            recipe,
            output=place,
            require_fidelity=require_fidelity,
            measure=True,
            hard_link=False,
            progress=progress,
            allow_failed=True,
        )
    for warning in result.warnings:
        print_warning(warning)
    if result.report is not None and not as_json:
        print_content(result.report.content())
    return place


def _opened(folder: Path, require_fidelity: float | None, allow_failed: bool) -> BuiltFolder:
    from hubsplice.hub.built import open_built

    with show_progress() as progress:
        return open_built(
            folder,
            require_fidelity=require_fidelity,
            allow_failed=allow_failed,
            on_read=lambda done, total: progress("verifying", done, total),
        )
