"""What the edits of one splice may look up: features, vectors, probes and units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from hubsplice.compiling.learned import Learned
from hubsplice.edits.strength import Amount
from hubsplice.errors import RecipeError
from hubsplice.features.amounts import Activity, ResolvedAmount
from hubsplice.features.base import Feature, Probe, SiteStatistics
from hubsplice.features.contrast import Contrast
from hubsplice.features.examples import ContrastSource, LearnedProbe
from hubsplice.features.extract import CalibratedGate, extract_feature
from hubsplice.features.probe import load_probe
from hubsplice.features.references import ProbeSource, SaeSource, TensorSource
from hubsplice.features.sae import LoadedSae
from hubsplice.features.vector import load_subspace, load_vector
from hubsplice.intervention.normalization import Normalization


@dataclass(frozen=True, eq=False)
class SpliceSources:
    """What the edits of one splice look up.

    Attributes:
        sae: the splice's SAE, or None where it names none.
        hidden_size: the width of the base model's residual stream.
        statistics: what calibration measured at the site.
        gates: calibrated thresholds by feature index, for TopK and AbsTopK.
        learned: what was learned from the splice's examples.
        layer: the layer whose output is edited; None for a place within a layer.
        gate_saes: the SAEs that only conditions read.
    """

    sae: LoadedSae | None
    hidden_size: int
    statistics: SiteStatistics
    gates: Mapping[int, CalibratedGate] = field(default_factory=dict)
    learned: Learned = field(default_factory=Learned)
    layer: int | None = None
    gate_saes: Mapping[SaeSource, LoadedSae] = field(default_factory=dict)

    def feature(self, index: int) -> Feature:
        """The feature with this index in the splice's SAE."""
        if self.sae is None:
            raise RecipeError(f"feature: {index} needs an SAE, and this splice has no `sae`")
        return extract_feature(self.sae, index, self.gates.get(index))

    def gate_feature(self, index: int, sae: SaeSource) -> Feature:
        """A feature of another SAE."""
        feature = extract_feature(self.gate_saes[sae], index)
        return replace(feature, name=f"{feature.name} of {sae.title}")

    def vector(self, source: TensorSource) -> Tensor:
        """A steering vector, shape [d], float32."""
        return load_vector(source, self.hidden_size, self.layer)

    def subspace(self, source: TensorSource) -> Tensor:
        """An orthonormal basis, shape [k, d], float32, of the span of a [d] or [k, d] tensor."""
        return load_subspace(source, self.hidden_size, self.layer)

    def contrast(self, source: ContrastSource) -> Contrast:
        """A direction that was learned from examples."""
        return self.learned.contrasts[source]

    def probe(self, source: ProbeSource | LearnedProbe) -> Probe:
        """A linear probe."""
        if isinstance(source, LearnedProbe):
            return self.learned.probes[source]
        return load_probe(source, self.hidden_size)

    def resolve(
        self,
        amount: Amount,
        *,
        direction: Tensor,
        feature: Feature | None,
        stated_max: float | None,
    ) -> ResolvedAmount:
        """What `amount` of `direction` [d] comes to.

        Raises:
            RecipeError: `x max` or `max` without a feature, or `x max` of a feature that
                calibration never saw active, if the recipe states no maximum.
        """
        require_feature(amount, feature, stated_max)
        norm = float(direction.norm())
        activity = None if feature is None else self.statistics.activity.get(feature.name)
        if amount.unit == "norm":
            value = amount.value * self.statistics.median_norm / norm
        elif amount.unit == "max":
            value = amount.value * _largest(amount, feature, activity, stated_max)
        else:
            value = amount.value
        own_norm = feature is not None and feature.normalization is not Normalization.NONE
        # A normalised stream has the norm √d.
        whole = math.sqrt(self.hidden_size) if own_norm else self.statistics.median_norm
        return ResolvedAmount(
            stated=str(amount),
            value=value,
            share=abs(value) * norm / whole if whole else None,
            own_norm=own_norm,
            direction_norm=norm,
            stated_max=stated_max,
            activity=activity,
            of_max=_of_max(value, activity, stated_max),
        )


def require_feature(amount: Amount, feature: Feature | None, stated_max: float | None) -> None:
    """Raise `RecipeError` where a vector's strength counts in a feature's activations."""
    if feature is not None:
        return
    if amount.unit == "max":
        raise RecipeError(
            f"strength: '{amount}' needs a feature, whose largest activation it counts in; a "
            "vector takes a number, or one like '0.3 x norm'"
        )
    if stated_max is not None:
        raise RecipeError(f"max: {stated_max:g} is of a feature, and a vector has no activation")


def _of_max(value: float, activity: Activity | None, stated_max: float | None) -> float | None:
    largest = stated_max or (activity.maximum if activity else 0.0)
    return value / largest if largest > 0.0 else None


def _largest(
    amount: Amount, feature: Feature | None, activity: Activity | None, stated_max: float | None
) -> float:
    if stated_max is not None:
        return stated_max
    if activity is None or activity.maximum <= 0.0:
        name = "a vector" if feature is None else feature.name
        raise RecipeError(
            f"strength: '{amount}' of {name}, which was never active in calibration; give a "
            "number, state its maximum (`max:`), or calibrate on text where it is active"
        )
    return activity.maximum
