"""Granite: Llama with a factor on what each block adds to the stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from typing_extensions import override

from hubsplice.architectures.gated_prenorm import BiasedPreNorm
from hubsplice.architectures.prenorm import compile_prenorm
from hubsplice.architectures.registry import ARCHITECTURES
from hubsplice.architectures.spliced_layer import SplicedLayer
from hubsplice.calibration import SiteActivations
from hubsplice.intervention import Site


@ARCHITECTURES.register("granite")
class Granite(BiasedPreNorm):
    """Granite 3 and 4 dense: their own class has every bias."""

    class_name_before: ClassVar[str] = "GraniteForCausalLM"
    class_name_after: ClassVar[str] = "GraniteForCausalLM"
    rewritten: ClassVar[Mapping[str, Any]] = {"attention_bias": True, "mlp_bias": True}

    @property
    @override
    def branch_multiplier(self) -> float:
        return float(self.config.get("residual_multiplier", 1.0))

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if not self.branch_multiplier:
            yield "residual_multiplier: found 0, expected another number: no layer adds anything"

    @override
    def empty_layer(self, dtype: torch.dtype) -> SplicedLayer:
        return replace(super().empty_layer(dtype), multiplier=self.branch_multiplier)

    @override
    def construct(
        self, site: Site, activations: SiteActivations, dtype: torch.dtype
    ) -> SplicedLayer:
        return compile_prenorm(site, activations, dtype, multiplier=self.branch_multiplier)
