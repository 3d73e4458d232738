"""A recipe to start from, with a feature that was found."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from hubsplice.features.references import SaeSource
from hubsplice.files.new_files import write_files
from hubsplice.recipe.reading import parse_recipe
from hubsplice.recipe.yaml_text import dump_yaml

Wish = Literal["more", "less"]

_MOST_PROMPTS = 8


def write_starter(
    path: Path,
    *,
    base_model: str,
    revision: str | None,
    sae: SaeSource,
    after_layer: int | None,
    feature: int,
    largest: float | None,
    wish: Wish,
    prompts: Iterable[dict[str, str]],
    doubt: str | None,
    force: bool,
) -> None:
    """Write a recipe that `hubsplice check` accepts.

    Args:
        path: the recipe's file.
        base_model: a Hub id, or an absolute path.
        revision: its commit; None for a local folder.
        sae: the SAE.
        after_layer: where it reads, if not where it was trained.
        feature: the feature.
        largest: its largest activation on the user's text; None where there is none, so that a
            build measures it.
        wish: whether there is to be more of the feature, or none of it.
        prompts: text on which the feature is active, for calibration; the first of it is taken.
        doubt: why the feature may not be what was looked for; None for no doubt.
        force: whether an existing file is overwritten.

    Raises:
        RecipeError: it would be no recipe.
        OutputError: the file is there already, or can't be written.
    """
    edit: dict[str, Any] = {"kind": "ablate", "feature": feature}
    if wish == "more":
        edit = {"kind": "clamp", "feature": feature, "to": "1.0 x max"}
        if largest is not None:
            edit["max"] = _rounded(largest)
    folder = path.parent.absolute()
    splice: dict[str, Any] = {} if after_layer is None else {"after_layer": after_layer}
    splice["sae"] = sae.model_dump(mode="json", exclude_none=True)
    if sae.path is not None:
        splice["sae"]["path"] = _below(sae.path, folder)
    splice["edits"] = [edit]
    base = Path(base_model)
    recipe: dict[str, Any] = {
        "base_model": _below(base, folder) if base.is_absolute() else base_model
    }
    if revision is not None:
        recipe["revision"] = revision
    recipe["splices"] = [splice]
    if taken := list(islice(prompts, _MOST_PROMPTS)):
        recipe["prompts"] = taken
    doubts = [] if doubt is None else [f"# {doubt}"]
    text = "\n".join([*doubts, *_comments(wish, feature, largest), dump_yaml(recipe)])
    parse_recipe(text, folder=path.parent)
    write_files({path.name: text}, path.parent, force=force)


def _below(path: Path, folder: Path) -> str:
    """A path as a recipe in the folder may have it, so that both can be moved together."""
    return f"./{path.relative_to(folder)}" if path.is_relative_to(folder) else str(path)


def _comments(wish: Wish, feature: int, largest: float | None) -> list[str]:
    known = "" if largest is None else f" Its largest activation on your text is {largest:.4g}."
    found = f"# Feature {feature}.{known}"
    if wish == "less":
        return [
            found,
            "# `ablate` takes the feature away; `scale` with a `factor` below 1 weakens it.",
        ]
    if largest is None:
        found += (
            " `max` is left out, since it was looked at in neutral text; a build measures it.\n"
            "# With --text or --positive, `find` takes it from your text."
        )
    return [
        found,
        "# `clamp` holds it at `to` at every token. Try other strengths with `hubsplice try`, and",
        "# compare what they gain and lose with `hubsplice sweep`. See also `hubsplice edits`.",
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
