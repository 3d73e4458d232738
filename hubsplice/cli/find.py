"""`hubsplice find`."""

from __future__ import annotations

import enum
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubsplice.cli.app import AsJson
from hubsplice.errors import RecipeError
from hubsplice.terminal import print_content, print_json, print_note, print_warning

if TYPE_CHECKING:
    from hubsplice.explore.found import Found
    from hubsplice.explore.show import ShownFeature


class Pool(enum.StrEnum):
    """What an example counts by."""

    MAX = "max"
    MEAN = "mean"


class Wish(enum.StrEnum):
    """What the recipe is to do with the feature."""

    MORE = "more"
    LESS = "less"


def _file(name: str, text: str) -> Any:
    return typer.Option(name, metavar="FILE", help=text, show_default=False)


def find(
    sae: Annotated[
        list[str],
        typer.Option(
            "--sae",
            metavar="SAE",
            help="A folder, Neuronpedia's MODEL/SAE, RELEASE/ID of SAELens's registry, or "
            "OWNER/REPOSITORY[/FOLDER] of the Hub. Several are searched together.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="The base: a folder or a Hub id. [default: the model that the SAE names]",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option("--revision", help="The base's commit, branch or tag.", show_default=False),
    ] = None,
    after_layer: Annotated[
        int | None,
        typer.Option(
            "--after-layer",
            metavar="N",
            help="Where the SAE reads, if not where it was trained.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        Path | None, _file("--text", "Find the features of this text, compared with neutral text.")
    ] = None,
    prompts: Annotated[
        Path | None,
        _file("--prompts", "The same for questions, one a line, put through the chat template."),
    ] = None,
    positive: Annotated[
        Path | None,
        _file("--positive", "Find what tells these examples, one a line, from --negative."),
    ] = None,
    negative: Annotated[
        Path | None,
        _file(
            "--negative",
            "Examples, one a line, that lack what you look for, and are otherwise alike.",
        ),
    ] = None,
    show: Annotated[
        int | None,
        typer.Option(
            "--show",
            metavar="N",
            min=0,
            help="Show one feature: where it is active, how strongly, and what it writes.",
            show_default=False,
        ),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Put the two sets through the chat template, as questions."),
    ] = False,
    pool: Annotated[
        Pool,
        typer.Option(
            "--pool",
            help="An example of two sets counts by its largest activation, or by their mean.",
        ),
    ] = Pool.MAX,
    top: Annotated[
        int, typer.Option("--top", min=1, help="How many features or texts to show.")
    ] = 10,
    tokens: Annotated[
        int, typer.Option("--tokens", min=256, help="How many tokens of neutral text are read.")
    ] = 8192,
    recipe: Annotated[
        Path | None,
        _file("--recipe", "Write a recipe with the best feature, or with that of --show."),
    ] = None,
    wish: Annotated[
        Wish, typer.Option("--wish", help="Whether the recipe gives more of it, or none.")
    ] = Wish.MORE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing recipe.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the features that matter for a text.

    Compares a text with neutral text, or two sets of examples, and ranks the features of SAEs;
    shows what one feature does; writes a recipe to start from. Nothing is built: the base runs up
    to the SAE's layer.
    """
    common: dict[str, Any] = {
        "model": model,
        "revision": revision,
        "after_layer": after_layer,
        "text": text,
        "prompts": prompts,
        "top": top,
        "tokens": tokens,
        "recipe": recipe,
        "wish": wish.value,
        "force": force,
    }
    if show is None:
        from hubsplice.interface.find import find as find_features

        found = find_features(
            sae, positive=positive, negative=negative, chat=chat, pool=pool.value, **common
        )
        _print(found, as_json=as_json)
        if not found.features:
            return
        if recipe is None:
            best = found.features[0]
            given = {
                "--model": model,
                "--revision": revision,
                "--sae": sae[best.sae],
                "--after-layer": after_layer,
                "--text": text,
                "--prompts": prompts,
                "--positive": positive,
            }
            words = ["hubsplice", "find"]
            words += [str(w) for pair in given.items() if pair[1] is not None for w in pair]
            words += [*(["--chat"] if chat else []), "--show", str(best.feature)]
            print_note(f"next: see what it is active on: {shlex.join(words)}")
            print_note("--recipe FILE writes a recipe with it")
    else:
        from hubsplice.interface.find import show as show_feature

        if len(sae) != 1 or negative is not None:
            raise RecipeError("--show: it takes one --sae, and no --negative")
        shown = show_feature(show, sae[0], positive=positive, chat=chat, **common)
        _print(shown, as_json=as_json)
    if recipe is not None:
        print_note(f'wrote {recipe}; see what it does: hubsplice try {recipe} "your prompt"')


def _print(result: Found | ShownFeature, *, as_json: bool) -> None:
    for warning in result.warnings:
        print_warning(warning)
    if as_json:
        print_json(_plain(result))
    else:
        print_content(result.findings())


def _plain(result: Found | ShownFeature) -> dict[str, Any]:
    """The result as JSON; paths as text."""
    from hubsplice.features.references import SaeSource

    def plain(value: Any) -> Any:
        if isinstance(value, SaeSource):
            return value.model_dump(mode="json", exclude_none=True)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    found: dict[str, Any] = plain(asdict(result))
    return found
