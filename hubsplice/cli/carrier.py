"""`hubsplice carrier`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubsplice.cli.app import AsJson, HardLink, NewFolder, Revision
from hubsplice.errors import RecipeError
from hubsplice.terminal import print_content, print_json


def carrier(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|BASE",
            help="A recipe, or the base model's folder or Hub repository.",
            show_default=False,
        ),
    ],
    output: NewFolder,
    after_layer: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N]",
            help="The base's layers behind each of which an empty one is inserted. [default: "
            "the recipe's]",
            show_default=False,
        ),
    ] = None,
    revision: Revision = None,
    slots: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="How many neurons of each empty layer edits can use. [default: as many as common "
            "recipes need]",
            show_default=False,
        ),
    ] = None,
    hard_link: HardLink = False,
    as_json: AsJson = False,
) -> None:
    """Write a carrier: a base with empty layers that adapters fill.

    Its logits are the base's, bit for bit. `hubsplice build --adapter` makes adapters for it, and
    one server serves the base and many edits side by side.
    """
    from hubsplice.interface.adapters import carrier as write_carrier
    from hubsplice.interface.adapters import places_of_recipe
    from hubsplice.interface.sources import is_recipe_path

    layers = None if after_layer is None else _layers(after_layer)
    base = model
    if is_recipe_path(model):
        base, found_revision, places = places_of_recipe(model)
        revision = revision or found_revision
        layers = layers or places
    if not layers:
        raise RecipeError("--after-layer: which layers? Give one or more, such as 13,20")
    result = write_carrier(
        base, output, after_layers=layers, revision=revision, slots=slots, hard_link=hard_link
    )
    if as_json:
        print_json(
            {
                "folder": str(result.folder),
                "fingerprint": result.fingerprint,
                "after_layers": sorted(set(layers)),
                "slots": result.slots.counts,
            }
        )
    else:
        print_content(result.content())


def _layers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise RecipeError(
            f"--after-layer: found {text!r}, expected layer numbers such as 13,20"
        ) from None
