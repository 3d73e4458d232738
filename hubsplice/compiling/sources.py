"""What the edits of one splice may look up: features, vectors, probes and units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from hubsplice.edits.strength import Amount
from hubsplice.errors import RecipeError
from hubsplice.features.base import Feature, Probe, SiteStatistics
from hubsplice.features.extract import CalibratedGate, extract_feature
from hubsplice.features.probe import load_probe
from hubsplice.features.references import ProbeSource, TensorSource
from hubsplice.features.sae import LoadedSae
from hubsplice.features.vector import load_subspace, load_vector


@dataclass(frozen=True, eq=False)
class SpliceSources:
    """The `Sources` of one splice.

    Attributes:
        sae: the splice's SAE, or None where it names none.
        hidden_size: the width of the base model's residual stream.
        statistics: what calibration measured at the site.
        gates: calibrated thresholds by feature index, for TopK and AbsTopK.
    """

    sae: LoadedSae | None
    hidden_size: int
    statistics: SiteStatistics
    gates: Mapping[int, CalibratedGate] = field(default_factory=dict)

    def feature(self, index: int) -> Feature:
        """The feature with this index in the splice's SAE."""
        if self.sae is None:
            raise RecipeError(f"feature: {index} needs an SAE, and this splice has no `sae`")
        return extract_feature(self.sae, index, self.gates.get(index))

    def vector(self, source: TensorSource) -> Tensor:
        """A steering vector, shape [d], float32."""
        return load_vector(source, self.hidden_size)

    def subspace(self, source: TensorSource) -> Tensor:
        """An orthonormal basis, shape [k, d], float32, of the span of a [d] or [k, d] tensor."""
        return load_subspace(source, self.hidden_size)

    def probe(self, source: ProbeSource) -> Probe:
        """A linear probe."""
        return load_probe(source, self.hidden_size)

    def amount(self, amount: Amount, *, direction: Tensor, feature: Feature | None) -> float:
        """The multiple of `direction` [d] that `amount` means.

        Raises:
            RecipeError: `x max` without a feature, or of one that calibration never saw active.
        """
        if amount.unit == "norm":
            return amount.value * self.statistics.median_norm / float(direction.norm())
        if amount.unit == "sae":
            return amount.value
        if feature is None:
            raise RecipeError(
                f"strength: '{amount}' needs a feature, whose largest activation it counts in; a "
                "vector takes a number, or one like '0.3 x norm'"
            )
        largest = self.statistics.max_activation.get(feature.name, 0.0)
        if largest <= 0.0:
            raise RecipeError(
                f"strength: '{amount}' of {feature.name}, which was never active in calibration; "
                "give a number, or calibrate on text where it is active"
            )
        return amount.value * largest
