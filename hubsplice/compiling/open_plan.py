"""The weights of a plan: the base's headers, and the SAEs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.resolve import ResolvedBase, fetch_weights
from hubsplice.compiling.linker import Linker
from hubsplice.compiling.plan import Plan, PlannedSplice
from hubsplice.compiling.precision import precision_of
from hubsplice.families.architecture import Architecture
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import LoadedSae, load_sae
from hubsplice.recipe.models import Recipe


@dataclass(frozen=True, eq=False)
class OpenPlan:
    """A plan whose weights are at hand.

    Attributes:
        plan: what was planned.
        base: the base's files.
        dtype: the precision to compile for.
        saes: the SAE of each of the plan's splices, in their order; None for one without.
        gate_saes: the SAEs that only conditions of each splice read.
    """

    plan: Plan
    base: BaseCheckpoint
    dtype: torch.dtype
    saes: tuple[LoadedSae | None, ...]
    gate_saes: tuple[Mapping[SaeSource, LoadedSae], ...]

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.plan.recipe

    @property
    def resolved(self) -> ResolvedBase:
        """Where the base came from."""
        return self.plan.resolved

    @property
    def architecture(self) -> Architecture:
        """What the base is."""
        return self.plan.architecture

    @property
    def splices(self) -> tuple[PlannedSplice, ...]:
        """The splices, in the order of their places."""
        return self.plan.splices

    @cached_property
    def linker(self) -> Linker:
        """What the result is made of."""
        return Linker(self.plan.architecture, self.plan.layers)

    @property
    def edited_biases(self) -> dict[str, PlannedSplice]:
        """The splices that biases carry, by the tensor's name in the result."""
        return {
            self.linker.output_bias_name(self.base.tensors, splice.place.layer): splice
            for splice in self.splices
            if splice.in_bias
        }


def open_plan(plan: Plan) -> OpenPlan:
    """Fetch and open the weights of a plan.

    Raises:
        HubspliceError: something is missing or damaged, or is not what its configuration says.
    """
    fetch_weights(plan.resolved)
    base = BaseCheckpoint.of(plan.base)
    saes = tuple(None if splice.sae is None else load_sae(splice.sae) for splice in plan.splices)
    gates = tuple(
        {source: load_sae(found) for source, found in splice.gate_saes.items()}
        for splice in plan.splices
    )
    return OpenPlan(plan, base, precision_of(plan.recipe, base), saes, gates)
