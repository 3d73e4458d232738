"""Sites whose terms have conditions: two layers, of which the first one marks tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from hubsplice.checkpoint.manifest import MARKING
from hubsplice.compiling.construct import compile_site
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.marking import is_conditional, limits_of, marks_of, staged
from hubsplice.constructions.two_layers import TwoLayers
from hubsplice.errors import UnsupportedError
from hubsplice.families.architecture import Architecture
from hubsplice.intervention.place import Block, Place
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations

# How far what a layer wrote may be from the mark, over the shortest mark. Where it is farther, the
# two precisions have a gate on different sides.
_AS_MARKED = 0.25


def require_two_layers(architecture: Architecture, place: Place) -> None:
    """Refuse edits under conditions where there is no room for two layers behind one another.

    Raises:
        UnsupportedError: the message says what can be done instead.
    """
    if place.block is Block.ATTENTION:
        raise UnsupportedError(
            "edits: a condition (`when`) takes two layers behind one another, and between the "
            "attention and the MLP of a layer there is room for one; edit after a layer "
            "(`after_layer`)"
        )
    if architecture.layers_per_splice(place) > 1:
        raise UnsupportedError(
            f"edits: a condition (`when`) takes two layers behind one another, and in "
            f"{architecture.family.class_name} with parallel blocks each of them would take two "
            "itself, which is not offered; `gated_steer` and `steer` under one gate take one"
        )


def compiled(
    base: Architecture, site: Site, activations: SiteActivations, dtype: torch.dtype
) -> CompiledLayer:
    """Compile a site's terms, into two layers where they have conditions.

    Args:
        base: the base.
        site: what to compile.
        activations: calibration there.
        dtype: the serving precision.
    """
    if not is_conditional(site):
        return compile_site(base, site, activations, dtype)
    return two_layers(site, activations, lambda part, h: compile_site(base, part, h, dtype))


def two_layers(
    site: Site,
    activations: SiteActivations,
    compile_plain: Callable[[Site, SiteActivations], CompiledLayer],
) -> TwoLayers:
    """Compile a site whose terms have conditions.

    Args:
        site: what to compile.
        activations: calibration there.
        compile_plain: compiles a site without conditions.
    """
    activations = activations.agreeing()
    ordinary = ~site.is_sink(activations.reference)
    marks = marks_of(site, activations.reference[ordinary], activations.serving[ordinary])
    marking, editing = staged(site, marks)
    first = compile_plain(marking, activations)
    second = compile_plain(editing, _behind(activations, marking, first))
    first = replace(
        first,
        constants=first.constants
        | {
            "construction": MARKING,
            "marks": [mark.record for mark in marks],
        },
    )
    return TwoLayers(
        first,
        second,
        constants=second.constants,
        jump_gates=second.jump_gates,
        homes=second.homes,
        approximations=tuple(
            dict.fromkeys((*limits_of(site, marks), *first.approximations, *second.approximations))
        ),
    )


def _behind(activations: SiteActivations, marking: Site, layer: CompiledLayer) -> SiteActivations:
    """Calibration behind the layer that marks, at tokens that both precisions mark alike."""
    reference = marking.edit(activations.reference)
    serving = _made(layer, activations)
    apart = (serving.float() - activations.serving.float()) - (reference - activations.reference)
    shortest = min((float(t.direction.norm()) for t in marking.terms), default=math.inf)
    kept = apart.norm(dim=-1) <= _AS_MARKED * shortest
    return replace(activations, reference=reference[kept], serving=serving[kept])


def _made(layer: CompiledLayer, activations: SiteActivations) -> Tensor:
    return torch.cat(
        [layer(part, activations.eps) for part in torch.split(activations.serving, 4096)]
    )
