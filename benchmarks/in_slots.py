"""A compiled layer as an adapter has it on a carrier, computed in memory as PEFT computes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hubsplice.compiling.construct import compile_site
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.held_norms import SILENT_CHANNELS
from hubsplice.constructions.prenorm_layer import SplicedLayer
from hubsplice.constructions.sandwich_layer import SandwichLayer
from hubsplice.constructions.slots import (
    DOWN,
    GATE,
    MOST_PLAIN,
    UP,
    Factors,
    Slots,
    in_slots,
)
from hubsplice.families.architecture import Architecture, Held
from hubsplice.families.tensors import ATTENTION_OUTPUT
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations


@dataclass(frozen=True, eq=False)
class InSlots:
    """A layer in a carrier's slots.

    Attributes:
        layer: what it was compiled to.
        factors: the adapter's, by role.
        biases: of the carrier's gates and of its up projection, shape [neurons] each.
    """

    layer: SplicedLayer
    factors: dict[str, Factors]
    biases: tuple[Tensor, Tensor]

    @property
    def constants(self) -> Mapping[str, Any]:
        """Those of the layer."""
        return self.layer.constants

    def __call__(self, h: Tensor, eps: float) -> Tensor:
        """What leaves the layer for a stream h [..., d]; what lies between two factors is rounded
        to the layer's precision."""
        h = h.to(self.layer.attention_bias.dtype)
        x = self.layer.normalise(h, eps)
        gates, ups = (
            bias + self._change(role, x) for role, bias in zip((GATE, UP), self.biases, strict=True)
        )
        written = self._change(DOWN, functional.silu(gates) * ups)
        return (h + self.layer.constant) + written * self.layer.multiplier

    def _change(self, role: str, x: Tensor) -> Tensor:
        factors = self.factors[role]
        return functional.linear(functional.linear(x, factors.a), factors.b)


def compile_forms(
    architecture: Architecture,
    site: Site,
    activations: SiteActivations,
    dtype: torch.dtype,
    *,
    adapter: bool,
) -> dict[str, CompiledLayer | InSlots]:
    """The layer of a site as a merged checkpoint has it, and perhaps as an adapter, by name."""
    layer = compile_site(architecture, site, activations, dtype)
    if not adapter:
        return {"": layer}
    if isinstance(layer, SandwichLayer):
        # The base may be of another family, whose norms say nothing: the stream does.
        quiet = activations.reference.var(dim=0).argsort()[:SILENT_CHANNELS].tolist()
        held = Held(tuple(quiet), min(architecture.intermediate_size, MOST_PLAIN))
        carried = replace(architecture, held=held)
        return {"": layer, "adapter": compile_site(carried, site, activations, dtype)}
    assert isinstance(layer, SplicedLayer)
    slots = Slots.fitting(room := architecture.intermediate_size)
    width = architecture.projections[ATTENTION_OUTPUT].inputs
    factors = in_slots(layer, site, activations, slots).factors(slots, room, width)
    gate, up = (functional.pad(b.to(dtype), (0, room - slots.total)) for b in slots.biases())
    return {"": layer, "adapter": InSlots(layer, factors, (gate, up))}
