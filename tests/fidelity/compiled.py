"""Splicing a base with a layer that is compiled for a site."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.compiling.construct import compile_site, empty_layer, stacked
from hubsplice.families.architecture import architecture_of
from hubsplice.fidelity.inserted import InsertedAt, inserted_at
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations

Splice = Callable[..., Path]


def spliced(
    splice: Splice,
    base: Path,
    site: Site,
    activations: SiteActivations,
    dtype: torch.dtype,
    name: str = "spliced",
) -> tuple[Path, InsertedAt]:
    """The base with a layer that is compiled for a site, and where that layer is."""
    architecture = architecture_of(BaseConfig.open(base).config)
    silent = all(not any(t.function.slopes + t.function.intercepts) for t in site.terms)
    layer = (
        empty_layer(architecture, dtype)
        if silent
        else compile_site(architecture, site, activations, dtype)
    )
    stack = stacked(architecture, layer, site.place)
    folder = splice(base, (site.place,) * len(stack), stack, name=name)
    (at,) = inserted_at(
        architecture.layer_map((site.place,) * len(stack)),
        [{**x.constants, "jump_gates": x.jump_gates} for x in stack],
        gate_module=architecture.family.becomes.block.gate_module,
        carrier=architecture.carrier,
    )
    return folder, at
