"""Which construction compiles a site, and the decoder layers that the result is written as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from hubsplice.checkpoint.manifest import INJECTION, SPLIT
from hubsplice.constructions import bias_free, layernorm, prenorm, sandwich
from hubsplice.constructions.bias_free import compile_bias_free
from hubsplice.constructions.bias_free_layer import BiasFreeLayer
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.held_norms import HeldNorms
from hubsplice.constructions.layernorm import compile_layernorm
from hubsplice.constructions.layernorm_layer import PlainLayer
from hubsplice.constructions.prenorm import compile_prenorm
from hubsplice.constructions.prenorm_layer import SplicedLayer
from hubsplice.constructions.sandwich import compile_sandwich
from hubsplice.constructions.sandwich_form import POST_NORM, SANDWICH, SandwichForm
from hubsplice.constructions.sandwich_layer import SandwichLayer
from hubsplice.constructions.two_layers import TwoLayers
from hubsplice.families.architecture import Architecture
from hubsplice.families.blocks import Construction
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.calibration import SiteActivations

FORMS: dict[Construction, SandwichForm] = {
    Construction.SANDWICH: SANDWICH,
    Construction.POST_NORM: POST_NORM,
}
"""How the blocks of a construction differ that normalises what they write."""


def compile_site(
    base: Architecture, site: Site, activations: SiteActivations, dtype: torch.dtype
) -> CompiledLayer:
    """Compile a site's terms with the construction that suits the base's layers.

    Args:
        base: the base.
        site: what to compile.
        activations: calibration there; tokens at which the two precisions have parted are left
            out.
        dtype: the serving precision.
    """
    numbers = [number for number, term in enumerate(site.terms) if _acts(term)]
    acting = replace(site, terms=tuple(site.terms[number] for number in numbers))
    layer = construct(base, acting, activations.agreeing(), dtype)
    layer = replace(
        layer,
        jump_gates=tuple((numbers[term], neuron, side) for term, neuron, side in layer.jump_gates),
        homes=_of_all(len(site.terms), numbers, layer.homes),
    )
    notes = base.family.special.notes(base)
    return replace(layer, approximations=(*layer.approximations, *notes)) if notes else layer


def _of_all(count: int, numbers: Sequence[int], homes: Sequence[int]) -> tuple[int, ...]:
    """The homes of all terms, of which those with these numbers act; none where nothing does."""
    found = dict(zip(numbers, homes, strict=True))
    return tuple(found.get(number, 0) for number in range(count)) if found else ()


def _acts(term: Term) -> bool:
    """Whether a term changes anything, as a factor of 1 doesn't."""
    function = term.function
    return bool(any(function.slopes) or any(function.intercepts)) and bool(term.direction.any())


def construct(
    base: Architecture, site: Site, activations: SiteActivations, dtype: torch.dtype
) -> CompiledLayer:
    """What `compile_site` gives, from the tokens at which the two precisions agree."""
    room = base.intermediate_size
    match base.family.becomes.block.construction:
        case Construction.PRENORM:
            return compile_prenorm(site, activations, dtype, multiplier=base.branch_multiplier)
        case Construction.BIAS_FREE:
            return compile_bias_free(site, activations, dtype, room)
        case Construction.LAYERNORM:
            return compile_layernorm(
                site, activations, dtype, activation=base.activation, room=room
            )
        case Construction.SANDWICH | Construction.POST_NORM as kind:
            held = held_norms(base, dtype)
            room = base.held.neurons if base.held else room
            return compile_sandwich(site, activations, dtype, room, FORMS[kind], held=held)


def held_norms(base: Architecture, dtype: torch.dtype) -> HeldNorms | None:
    """The norms that a carrier's empty layers have already; None where edits choose them."""
    if base.held is None:
        return None
    form = FORMS[base.family.becomes.block.construction]
    return HeldNorms.of(base.held.silent, base.hidden_size, form, dtype)


def construction_constants(base: Architecture, dtype: torch.dtype) -> dict[str, Any]:
    """What every layer with edits of a base has among its constants, whatever the edits.

    Args:
        base: the base.
        dtype: the serving precision: bfloat16 or float32.
    """
    kind = base.family.becomes.block.construction
    chosen: dict[str, Any]
    match kind:
        case Construction.PRENORM:
            chosen = asdict(prenorm.CONSTANTS[dtype])
        case Construction.BIAS_FREE:
            chosen = asdict(bias_free.CONSTANTS[dtype].fitting(base.hidden_size))
            # How many copies there are depends on the room that the edits leave.
            del chosen["copies"]
        case Construction.LAYERNORM:
            chosen = asdict(layernorm.CONSTANTS[dtype])
            del chosen["knots"]
        case Construction.SANDWICH | Construction.POST_NORM:
            chosen = asdict(sandwich.CONSTANTS[dtype])
            chosen |= {"half_gap": FORMS[kind].saturation, "saturation": 0.0}
    return chosen | {"construction": kind.value}


def empty_layer(base: Architecture, dtype: torch.dtype) -> CompiledLayer:
    """A layer that changes nothing, bit for bit."""
    width = base.hidden_size
    match base.family.becomes.block.construction:
        case Construction.PRENORM:
            return replace(SplicedLayer.empty(width, dtype), multiplier=base.branch_multiplier)
        case Construction.BIAS_FREE:
            return BiasFreeLayer.empty(width, dtype)
        case Construction.LAYERNORM:
            return PlainLayer.empty(width, dtype, base.activation)
        case Construction.SANDWICH | Construction.POST_NORM as kind:
            return SandwichLayer.empty(width, dtype, FORMS[kind])


def stacked(base: Architecture, layer: CompiledLayer, place: Place) -> tuple[CompiledLayer, ...]:
    """The decoder layers that a compiled layer is written as, `layers_per_splice` of them.

    Behind the base's attention, the MLP of the edit reads its constant if the base's own attention
    can add that too. If not, the layer of the edit stays whole, and one that adds nothing is torn
    apart around it. Beside the attention, the MLP reads a constant only if a layer before has
    added it.
    """
    if isinstance(layer, TwoLayers):
        return layer.first, layer.second
    if base.layers_per_splice(place) == 1:
        return (layer,)
    dtype = next(iter(layer.tensors().values())).dtype
    empty = empty_layer(base, dtype)
    if base.reads_attention:
        return replace(empty, constants={"construction": SPLIT, "neurons": 0}), layer
    assert isinstance(empty, PlainLayer)
    assert isinstance(layer, PlainLayer)
    constant = replace(
        empty,
        out_bias=layer.attention_bias,
        constants={"construction": INJECTION, "neurons": 0},
    )
    return constant, layer
