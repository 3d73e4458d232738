"""`hubsplice verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hubsplice.cli.app import AsJson
from hubsplice.errors import CheckpointError
from hubsplice.terminal import print_json, print_table, show_progress

if TYPE_CHECKING:
    from hubsplice.verify import Check

_SHOWN = 10


def verify(
    model: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|REPO",
            help="A spliced checkpoint: its folder, or its Hub repository.",
            show_default=False,
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="MODEL",
            help="The base model, where it is not the repository that the manifest names.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision", help="The repository's commit, branch or tag.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove what a spliced checkpoint is: every tensor of its base, and nothing undeclared."""
    from hubsplice.verify import verify as verify_model

    with show_progress() as progress:
        result = verify_model(model, base=base, revision=revision, progress=progress)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        typer.echo(result.verdict)
        print_table(("check", "", "what was found"), map(_row, result.checks))
    if not result.passed:
        raise CheckpointError(f"{result.model}: {result.verdict}")


def _row(check: Check) -> tuple[str, str, str]:
    outcome = {True: "passed", False: "FAILED", None: "not made"}[check.passed]
    shown = check.problems[:_SHOWN]
    more = len(check.problems) - len(shown)
    lines = [check.detail, *shown, *([f"and {more} more (--json shows all)"] if more else [])]
    return check.name, outcome, "\n".join(lines)
