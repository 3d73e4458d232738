"""Right layers on the streams of tiny random models.

Such streams are the hardest for the proof of structure: along some directions next to nothing
varies, and read-outs are long there.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.compiling.construct import compile_site
from hubsplice.families.architecture import Architecture, architecture_of
from hubsplice.intervention.site import Site, Term
from hubsplice.proving.stored_layer import StoredLayer
from hubsplice.streams.calibration import SiteActivations, median_norm, stream_at
from hubsplice.streams.model import loaded
from tests.compiling.trained import LENGTH, NOTHING, PLACE, text_ids
from tests.constructions.streams import EDITS
from tests.families.variants import Variant, save_tiny
from tests.proving.layers import Case, padded

DTYPES = (torch.bfloat16, torch.float32)


@dataclass(frozen=True, eq=False)
class Streams:
    """The stream of a tiny random model, [tokens, d], in both precisions."""

    architecture: Architecture
    at: dict[torch.dtype, Tensor]

    @staticmethod
    def of(variant: Variant, seed: int, tokens: int) -> Streams:
        """The stream on text, behind layer 1 of a model of bfloat16 weights."""
        ids = text_ids()
        order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            base = save_tiny(variant, Path(folder), torch.bfloat16, seed=seed)
            for dtype in DTYPES:
                with loaded(base, dtype) as model:
                    at = stream_at(
                        model, ids[order[: tokens // LENGTH]], [PLACE], NOTHING, lambda *_: None
                    )
                found[dtype] = at[PLACE]
            return Streams(architecture_of(BaseConfig.open(base).config), found)

    def case(self, kind: str, dtype: torch.dtype, seed: int, features: int, source: str) -> Case:
        """A right layer of edits of some features."""
        exact = self.at[torch.float32]
        activations = SiteActivations(
            exact, self.at[dtype], median_norm(exact), self.architecture.norm_eps
        )
        site = _site(kind, activations, seed, features, source)
        layer = compile_site(self.architecture, site, activations, dtype)
        stored = StoredLayer(
            PLACE,
            PLACE.layer + 1,
            padded(layer),
            {role: f"model.layers.{PLACE.layer + 1}.{role}" for role in layer.tensors()},
            {},
            layer.constants | {"homes": list(layer.homes)},
            activations.eps,
        )
        return Case(stored, site, activations.median_norm)


def _site(kind: str, activations: SiteActivations, seed: int, features: int, source: str) -> Site:
    """Features along random directions, or along what the stream itself takes."""
    h, sink_norm = activations.reference, 5 * activations.median_norm
    ordinary = h[h.norm(dim=1) <= sink_norm]
    generator = torch.Generator().manual_seed(seed)
    if source == "stream":
        chosen = ordinary[torch.randperm(len(ordinary), generator=generator)[: 2 * features]]
        axes = functional.normalize(chosen - ordinary.mean(dim=0), dim=1)
    else:
        axes = 0.3 * torch.randn(2 * features, h.shape[1], generator=generator)
    terms = []
    for i in range(features):
        p = ordinary @ axes[2 * i]
        bias = -float(p.quantile(0.9)) if source == "stream" else 0.1
        function = EDITS[kind].function(float(p.std()))
        terms.append(Term(f"feature {i}", axes[2 * i], bias, function, axes[2 * i + 1]))
    return Site(PLACE.layer, tuple(terms), sink_norm, PLACE.block)
