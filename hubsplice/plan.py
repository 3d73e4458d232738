"""What a recipe asks for, resolved: the base on disk, its family, and every splice's SAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from hubsplice.architectures.base import Architecture
from hubsplice.architectures.registry import architecture_of
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.layer_map import LayerMap
from hubsplice.checkpoint.resolve import ResolvedBase, resolve_base
from hubsplice.construction import in_bias
from hubsplice.errors import RecipeError, UnsupportedError
from hubsplice.features.sae import LoadedSae, load_sae
from hubsplice.features.sae_match import match_warnings, require_width, site_place
from hubsplice.place import Place
from hubsplice.recipe import Recipe, Splice

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_STORED = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


@dataclass(frozen=True, eq=False)
class PlannedSplice:
    """A splice of the recipe with its place and its SAE.

    Attributes:
        field: how the recipe calls it (`splices[0]`).
        splice: as the recipe has it.
        place: where the stream is edited.
        sae: the SAE, if it names one.
        in_bias: whether a bias of that layer carries it, and no layer is inserted.
    """

    field: str
    splice: Splice
    place: Place
    sae: LoadedSae | None
    in_bias: bool


@dataclass(frozen=True, eq=False)
class Plan:
    """A recipe whose sources are all at hand.

    Attributes:
        recipe: the recipe.
        resolved: where the base came from.
        base: its files.
        architecture: its family.
        dtype: the precision to compile for.
        splices: in the order of their places.
        warnings: what builds, and may not be what was meant.
    """

    recipe: Recipe
    resolved: ResolvedBase
    base: BaseCheckpoint
    architecture: Architecture[Any]
    dtype: torch.dtype
    splices: tuple[PlannedSplice, ...]
    warnings: tuple[str, ...]

    @property
    def layers(self) -> LayerMap:
        """Where each layer of the result comes from."""
        return self.architecture.layer_map(
            [
                splice.place
                for splice in self.splices
                if not splice.in_bias
                for _ in range(self.architecture.layers_per_splice(splice.place))
            ]
        )

    @property
    def edited_biases(self) -> dict[str, PlannedSplice]:
        """The splices that biases carry, by the tensor's name in the result."""
        return {
            self.architecture.output_bias_name(
                self.base.tensors, splice.place.layer, self.layers
            ): splice
            for splice in self.splices
            if splice.in_bias
        }


def make_plan(recipe: Recipe) -> Plan:
    """Fetch and open everything that a recipe names.

    Raises:
        HubspliceError: something is missing, damaged, or does not fit the rest.
    """
    resolved = resolve_base(recipe.base_model, recipe.revision, weights=True)
    base = BaseCheckpoint.open(resolved.folder)
    architecture = architecture_of(base.config)
    architecture.validate()
    warnings: list[str] = []
    if base.previous_splice is not None:
        warnings.append(f"base_model: {recipe.base_model!r} is a spliced model itself")
    planned: list[PlannedSplice] = []
    names = (recipe.base_model, str(base.config.get("_name_or_path", recipe.base_model)))
    for i, splice in enumerate(recipe.splices):
        field = f"splices[{i}]"
        sae = None if splice.sae is None else load_sae(splice.sae)
        if sae is None:
            place = splice.place
            assert place is not None
        else:
            require_width(sae.config, architecture.hidden_size)
            place = site_place(sae.config, splice.place)
            doubts = match_warnings(sae.config, dict.fromkeys(names), splice.place)
            warnings += [f"{field}: {doubt}" for doubt in (*doubts, *sae.warnings)]
        architecture.require_place(place)
        if place in (other.place for other in planned):
            raise RecipeError(f"{field}: another splice is after layer {place} already")
        biased = in_bias(splice, place, architecture)
        planned.append(PlannedSplice(field, splice, place, sae, biased))
    planned.sort(key=lambda splice: splice.place)
    return Plan(
        recipe,
        resolved,
        base,
        architecture,
        _dtype(recipe, base),
        tuple(planned),
        tuple(warnings),
    )


def _dtype(recipe: Recipe, base: BaseCheckpoint) -> torch.dtype:
    name = recipe.dtype if recipe.dtype != "auto" else _stored_dtype(base)
    if name == "float16":
        raise UnsupportedError(
            "dtype: float16 can't be compiled for: an inserted layer's gates may exceed its "
            "largest number, 65504, and the output would not be a number; say bfloat16 or "
            "float32, and serve in that"
        )
    return _DTYPES[name]


def _stored_dtype(base: BaseCheckpoint) -> str:
    sizes: dict[str, int] = {}
    for entry in base.tensors.values():
        sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.size
    largest = max(sizes, key=lambda name: sizes[name])
    if largest not in _STORED:
        raise RecipeError(
            f"dtype: the base's weights are mostly {largest}; say bfloat16 or float32"
        )
    return _STORED[largest]
