"""Stand-ins for features, with which edits can be checked before any weight is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from hubsplice.compiling.learned import checked_examples
from hubsplice.compiling.sources import require_feature
from hubsplice.edits.strength import Amount
from hubsplice.errors import RecipeError
from hubsplice.features.amounts import ResolvedAmount
from hubsplice.features.base import Feature, Probe
from hubsplice.features.contrast import Contrast
from hubsplice.features.examples import ContrastSource, Examples, LearnedProbe
from hubsplice.features.probe import load_probe
from hubsplice.features.references import ProbeSource, SaeSource, TensorSource
from hubsplice.features.sae_config import SaeConfig
from hubsplice.features.vector import load_subspace, load_vector
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear

# A threshold that is not known yet. Edits that act on the same tokens with this one do so with any.
_FAR_AWAY = 1e12


class StandIns:
    """Sources whose features are in range and mean nothing: what lowering asks for is checked."""

    def __init__(
        self,
        sae: SaeConfig | None,
        hidden_size: int,
        layer: int | None = None,
        gates: Mapping[SaeSource, SaeConfig] | None = None,
    ) -> None:
        self._sae, self._gates = sae, gates or {}
        self._hidden_size = hidden_size
        self._layer = layer
        self._unknown: list[Tensor] = []

    def feature(self, index: int) -> Feature:
        if self._sae is None:
            raise RecipeError(f"feature {index} is of an SAE, and the splice has none")
        # Of every index its own, so that two edits are of one feature if they are, and only then.
        return self._stand_in(f"feature {index}", self._sae, index, index)

    def gate_feature(self, index: int, sae: SaeSource) -> Feature:
        if sae not in self._gates:
            raise RecipeError(f"{index} is of {sae.title}, which is not at hand")
        digest = hashlib.sha256(f"{index} {sae.model_dump_json()}".encode()).digest()
        seed = int.from_bytes(digest[:6], "big")
        return self._stand_in(f"feature {index} of {sae.title}", self._gates[sae], index, seed)

    def _stand_in(self, name: str, sae: SaeConfig, index: int, seed: int) -> Feature:
        sae.require_feature(index)
        axis = torch.randn(self._hidden_size, generator=torch.Generator().manual_seed(seed))
        axis /= axis.norm()
        threshold = 0.0 if sae.architecture == "standard" else _FAR_AWAY
        scalings = {kind.value: kind for kind in Normalization}
        return Feature(
            name=name,
            encoder=axis,
            bias=0.0,
            activation=PiecewiseLinear.jump_relu(threshold),
            threshold=threshold,
            decoder=axis,
            normalization=scalings.get(sae.normalize_activations, Normalization.NONE),
        )

    def vector(self, source: TensorSource) -> Tensor:
        return load_vector(source, self._hidden_size, self._layer)

    def subspace(self, source: TensorSource) -> Tensor:
        return load_subspace(source, self._hidden_size, self._layer)

    def contrast(self, source: ContrastSource) -> Contrast:
        checked_examples(source)
        found = Contrast(self._axis(source), 0.0)
        self._unknown.append(found.vector)
        return found

    def probe(self, source: ProbeSource | LearnedProbe) -> Probe:
        if isinstance(source, LearnedProbe):
            checked_examples(source)
            return Probe(source.title, self._axis(source), 0.0)
        return load_probe(source, self._hidden_size)

    def resolve(
        self,
        amount: Amount,
        *,
        direction: Tensor,
        feature: Feature | None,
        stated_max: float | None,
    ) -> ResolvedAmount:
        """What the recipe alone says of an amount; see `SpliceSources.resolve`."""
        require_feature(amount, feature, stated_max)
        value = {"sae": amount.value, "max": None, "norm": None}[amount.unit]
        if amount.unit == "max" and stated_max is not None:
            value = amount.value * stated_max
        unknown = feature is not None or any(direction is found for found in self._unknown)
        of_max = amount.value if amount.unit == "max" else None
        if amount.unit == "sae" and stated_max is not None:
            of_max = amount.value / stated_max
        return ResolvedAmount(
            stated=str(amount),
            value=value,
            share=abs(amount.value) if amount.unit == "norm" else None,
            direction_norm=None if unknown else float(direction.norm()),
            stated_max=stated_max,
            of_max=of_max,
        )

    def _axis(self, source: Examples) -> Tensor:
        """A direction of unit length, of all examples their own."""
        digest = hashlib.sha256(source.model_dump_json().encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))
        axis = torch.randn(self._hidden_size, generator=generator)
        return axis / axis.norm()
