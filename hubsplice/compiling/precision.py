"""The precision that a recipe compiles for."""

from __future__ import annotations

import torch

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.errors import RecipeError, UnsupportedError
from hubsplice.recipe.models import Recipe

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_STORED = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}

STORED_IN_FLOAT16 = "are stored so, the recipe has to say dtype: bfloat16 or float32"


def require_precision(name: str) -> None:
    """Raise `UnsupportedError` for a precision that inserted layers can't be compiled for."""
    if name == "float16":
        raise UnsupportedError(
            "dtype: float16 is not supported: the gates of an inserted layer can exceed its "
            "largest number, 65504, and the output is then not a number; use bfloat16 or float32, "
            "and serve the model in that precision"
        )


def precision_of(recipe: Recipe, base: BaseCheckpoint) -> torch.dtype:
    """What the recipe says, or the precision that most of the base is stored in.

    Raises:
        UnsupportedError: it is float16.
        RecipeError: the recipe says nothing, and most of the base is stored in another one.
    """
    name = recipe.dtype if recipe.dtype != "auto" else _stored_dtype(base)
    require_precision(name)
    return _DTYPES[name]


def stored_precision(base: BaseCheckpoint) -> torch.dtype:
    """The precision that most of a base is stored in; raises as `precision_of` does."""
    name = _stored_dtype(base)
    require_precision(name)
    return _DTYPES[name]


def _stored_dtype(base: BaseCheckpoint) -> str:
    sizes: dict[str, int] = {}
    for entry in base.tensors.values():
        sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.size
    largest = max(sizes, key=lambda name: sizes[name])
    if largest not in _STORED:
        raise RecipeError(
            f"dtype: the base's weights are mostly {largest}; use bfloat16 or float32"
        )
    return _STORED[largest]
