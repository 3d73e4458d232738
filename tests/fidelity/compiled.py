"""Tiny trained models, one of each construction, spliced with layers compiled for a site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from torch import Tensor

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.compiling.construct import compile_site, empty_layer, stacked
from hubsplice.families.architecture import architecture_of
from hubsplice.fidelity.inserted import InsertedAt, inserted_at
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations
from tests.families.variants import GATED, Variant

Splice = Callable[..., Path]

FLOAT32 = torch.float32

VARIANTS = [
    Variant("llama", {"intermediate_size": 256}),
    Variant("gpt2"),
    Variant("gpt_neox", {"intermediate_size": 256}),
    Variant("qwen3", GATED | {"intermediate_size": 256, "head_dim": 16}),
    Variant("olmo2", {"intermediate_size": 256}),
    Variant("gemma2", GATED | {"intermediate_size": 256, "head_dim": 16, "sliding_window": 64}),
]
"""One of each construction."""


def every_case(
    kinds: Sequence[str],
    told: Callable[[str, torch.dtype], bool],
    fast: Callable[[Variant, str, torch.dtype], bool],
) -> list[ParameterSet]:
    """All constructions by all kinds and precisions that can be told; the slow ones are marked."""
    return [
        pytest.param(
            variant,
            kind,
            dtype,
            id=f"{variant.family}-{kind}-{str(dtype)[6:]}",
            marks=[] if fast(variant, kind, dtype) else [pytest.mark.slow],
        )
        for variant in VARIANTS
        for kind in kinds
        for dtype in (torch.bfloat16, FLOAT32)
        if told(kind, dtype)
    ]


def enough(site: Site, held_out: Tensor) -> Site:
    """The edits that act on enough of the held-out tokens to be shown."""
    acting = (replace(site, terms=(t,)).delta(held_out).norm(dim=-1) > 0 for t in site.terms)
    kept = tuple(t for t, acts in zip(site.terms, acting, strict=True) if acts.sum() > 100)
    assert len(kept) > 2
    return replace(site, terms=kept)


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
