"""`hubsplice publish`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubsplice.cli.app import AsJson
from hubsplice.errors import RecipeError
from hubsplice.terminal import print_json, print_table, print_warning, show_progress

if TYPE_CHECKING:
    from hubsplice.build import BuildResult


def publish(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE|FOLDER",
            help="A recipe, which is built first, or a folder that `hubsplice build` wrote.",
            show_default=False,
        ),
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="The local folder to publish to.")
    ],
    allow_failed: Annotated[
        bool,
        typer.Option("--allow-failed", help="Publish what missed the fidelity that it requires."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what a built folder would publish; write nothing."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a built checkpoint, or a recipe's, to a local folder."""
    if dry_run:
        _plan_publication(source, to, allow_failed, as_json)
        return
    if source.is_file():
        published = _build(source, to, allow_failed=allow_failed).folder
    else:
        from hubsplice.hub import publish_to_folder

        published = publish_to_folder(source, to, allow_failed=allow_failed)
    if as_json:
        print_json({"folder": str(published)})
    else:
        typer.echo(str(published))


def _plan_publication(folder: Path, to: Path, allow_failed: bool, as_json: bool) -> None:
    if folder.is_file():
        raise RecipeError(
            f"--dry-run: {folder} is a recipe, and the sizes of its files are not known before "
            "they are built; give a built folder, or run `hubsplice check`"
        )
    from hubsplice.hub import plan_publication

    publication = plan_publication(folder, to, allow_failed=allow_failed)
    if as_json:
        files = dict(publication.sizes)
        print_json({"folder": str(to), "files": files, "bytes": publication.total})
        return
    print_table(
        ("file", "bytes"),
        [(name, f"{size:,}") for name, size in publication.sizes.items()]
        + [("total", f"{publication.total:,}")],
        title=f"would be written to {to}:",
    )


def _build(
    recipe: Path,
    output: Path,
    *,
    require_fidelity: float | None = None,
    measure: bool = True,
    hard_link: bool = False,
    allow_failed: bool = False,
) -> BuildResult:
    from hubsplice.recipe import load_recipe

    parsed = load_recipe(recipe)
    # A mistake in the recipe is shown before the compiler's imports, which take seconds.
    from hubsplice.build import build as build_recipe

    with show_progress() as progress:
        result = build_recipe(
            parsed,
            output=output,
            require_fidelity=require_fidelity,
            measure=measure,
            hard_link=hard_link,
            progress=progress,
            allow_failed=allow_failed,
        )
    for warning in result.warnings:
        print_warning(warning)
    return result
