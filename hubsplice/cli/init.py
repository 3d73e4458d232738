"""`hubsplice init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubsplice import __version__
from hubsplice.terminal import print_note

_ACTION = f"hubsplice/hubsplice/.github/actions/publish@v{__version__}"
_EXAMPLE = "me/my-edited-model"


def init(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="The recipe to write; with --workflow, the folder.  "
            "[default: recipe.yaml, or the current folder]",
            show_default=False,
        ),
    ] = None,
    workflow: Annotated[
        bool,
        typer.Option(
            "--workflow",
            help="Write a whole repository, which releases a model from GitHub Actions.",
        ),
    ] = False,
    repo_id: Annotated[
        str | None,
        typer.Option(
            "--repo-id",
            metavar="OWNER/NAME",
            help="The repository on the Hub that the recipe names.",
            show_default=False,
        ),
    ] = None,
    action: Annotated[
        str,
        typer.Option(
            "--action", metavar="REF", help="Where the workflow finds hubsplice's action."
        ),
    ] = _ACTION,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Write a recipe to start from, or a whole repository.

    The recipe has a comment for every field. With --workflow, the repository releases a model from
    GitHub Actions.
    """
    from hubsplice.files.new_files import require_folder_of, write_files
    from hubsplice.github_actions.release_repository import release_repository
    from hubsplice.recipe.starter import RECIPE, recipe_starter

    if not workflow:
        recipe = path or Path(RECIPE)
        require_folder_of(recipe)
        text = recipe_starter(recipe.name, repo_id=repo_id)
        write_files({recipe.name: text}, recipe.parent, force=force)
        print_note(f"wrote {recipe}; edit it, then run `hubsplice check {recipe}`")
        return
    folder = path or Path()
    files = release_repository(repo_id or _EXAMPLE, action=action)
    write_files(files, folder, force=force)
    for name in files:
        print_note(f"wrote {folder / name}")
    if repo_id is None:
        print_note(f"these files call the repository {_EXAMPLE}; change that")
    print_note(f"{folder / 'README.md'} says what to set up")
