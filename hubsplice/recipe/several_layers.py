"""Splices after several layers, which are written out as one after each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hubsplice.errors import RecipeError, quoted

_FIELD = "after_layer"


def one_layer_each(raw: Any) -> Any:
    """A recipe as plain data, in which every splice is after one layer.

    What is not a recipe is left to validation.

    Raises:
        RecipeError: a list that is empty, or that stands beside an SAE, which is of one layer.
    """
    if not isinstance(raw, Mapping) or not isinstance(raw.get("splices"), list):
        return raw
    return {
        **raw,
        "splices": [s for i, given in enumerate(raw["splices"]) for s in _each(i, given)],
    }


def _each(index: int, splice: Any) -> Iterator[Any]:
    if not isinstance(splice, Mapping) or not isinstance(splice.get(_FIELD), list):
        yield splice
        return
    layers, field = splice[_FIELD], f"splices[{index}].{_FIELD}"
    if not layers or len(set(map(str, layers))) < len(layers):
        raise RecipeError(f"{field}: found {quoted(layers)}, expected different layers")
    if splice.get("sae") is not None:
        raise RecipeError(
            f"{field}: found {quoted(layers)} and an SAE, which reads the stream after one layer; "
            "give each SAE a splice of its own"
        )
    for layer in layers:
        yield {**splice, _FIELD: layer}
