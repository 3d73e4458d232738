"""`hubsplice init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubsplice.errors import OutputError


def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where to write it.")] = Path(
        "recipe.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented starter recipe."""
    from hubsplice.templates import load_template

    text = load_template("recipe.yaml.j2").render(name=path.name)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise OutputError(f"{path}: exists already; --force overwrites it") from None
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {path}; edit it, then run `hubsplice check {path}`", err=True)
