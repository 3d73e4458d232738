"""What configurations and a look into folders say of a build, beside the edits themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hubsplice.checkpoint.base import BaseCheckpoint, BaseConfig
from hubsplice.checkpoint.resolve import ResolvedBase
from hubsplice.checkpoint.terms import license_doubt
from hubsplice.compiling.precision import STORED_IN_FLOAT16, precision_of, require_precision
from hubsplice.errors import HubspliceError, RecipeError
from hubsplice.families.architecture import Architecture
from hubsplice.recipe.models import Recipe
from hubsplice.text.sequences import require_text
from hubsplice.text.tokenizer import load_tokenizer


def beforehand(
    recipe: Recipe, resolved: ResolvedBase, base: BaseConfig, architecture: Architecture
) -> tuple[list[HubspliceError], list[str]]:
    """What would stop a build, and what may: of the precision, the files and the text.

    No weight is read. Of a base on the Hub whose weights are not fetched yet, nothing is said of
    them.

    Args:
        recipe: the recipe, with the name of the dataset where it says `sae`.
        resolved: where the base is.
        base: what it says of itself.
        architecture: what it is.

    Returns:
        The problems, and the warnings.
    """
    problems: list[HubspliceError] = []
    warnings: list[str] = []

    def gather(check: Callable[..., object], *arguments: object) -> None:
        try:
            check(*arguments)
        except HubspliceError as error:
            problems.append(error)

    if base.has_weights or resolved.complete:
        gather(_require_weights, recipe, base)
    else:
        gather(require_precision, recipe.dtype)
        stored = base.config.get("torch_dtype", base.config.get("dtype"))
        if recipe.dtype == "auto" and stored == "float16":
            warnings.append(f"dtype: config.json says float16; if the weights {STORED_IN_FLOAT16}")
    gather(load_tokenizer, base.folder)
    for section in ("calibration", "fidelity"):
        gather(require_text, getattr(recipe, section), section)
    problems += _lengths(recipe, architecture)
    doubt = license_doubt(base.folder)
    return problems, warnings if doubt is None else [*warnings, doubt]


def _require_weights(recipe: Recipe, base: BaseConfig) -> None:
    precision_of(recipe, BaseCheckpoint.of(base))


def _lengths(recipe: Recipe, architecture: Architecture) -> Iterator[RecipeError]:
    """Sequences that are longer than a table of positions, which has no row for the rest."""
    most = architecture.most_positions
    for section in ("calibration", "fidelity"):
        length = getattr(recipe, section).sequence_length
        if most is not None and length > most:
            yield RecipeError(
                f"{section}.sequence_length: found {length}, expected at most {most}, the number "
                "of positions that the base has"
            )
