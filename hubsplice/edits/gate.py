"""Gates: the condition under which a gated edit acts on a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, FiniteFloat, model_validator
from torch import Tensor

from hubsplice.edits.lookup import Lookup, source_name
from hubsplice.edits.opening import Opening
from hubsplice.edits.reading import Reading
from hubsplice.features.base import Feature
from hubsplice.intervention.condition import GateReadOut
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear


@dataclass(frozen=True, eq=False)
class GateFunction:
    """A gate, looked up: `open(⟨encoder, h̃⟩ + bias)` is 1 where the edit acts, else 0."""

    name: str
    encoder: Tensor
    bias: float
    open: PiecewiseLinear
    normalization: Normalization = Normalization.NONE


class Gate(Reading):
    """Act where a read-out p of the token exceeds a threshold.

    p is the feature's pre-activation, ⟨v, h⟩ for a vector or a contrast, ⟨w, h⟩ + b for a probe.
    """

    threshold: FiniteFloat | None = Field(
        None,
        description="Act where the read-out is above this. Default: where the feature is active; "
        "0 for a probe; halfway between the two means for a contrast. A vector has no default.",
    )
    read: Literal["pre_activation", "raw"] = Field(
        "pre_activation",
        description="What to read of a feature: its pre-activation, or `raw`, which is ⟨encoder "
        "row, h⟩ without biases and without input normalisation.",
    )

    @model_validator(mode="after")
    def _says_enough(self) -> Gate:
        if self.vector is not None and self.threshold is None:
            raise ValueError("a gate on a vector needs a threshold")
        if self.read == "raw" and self.feature is None:
            raise ValueError("read: raw is for a gate on a feature")
        return self

    def function(self, sources: Lookup) -> GateFunction:
        """The gate as a function of the token."""
        if self.vector is not None:
            assert self.threshold is not None
            return GateFunction(
                source_name("vector", self.vector),
                sources.vector(self.vector),
                0.0,
                PiecewiseLinear.step(self.threshold),
            )
        if self.contrast is not None:
            learned = sources.contrast(self.contrast)
            threshold = learned.threshold if self.threshold is None else self.threshold
            return GateFunction(
                self.contrast.title, learned.vector, 0.0, PiecewiseLinear.step(threshold)
            )
        if self.probe is not None:
            probe = sources.probe(self.probe)
            return GateFunction(
                probe.name, probe.weight, probe.bias, PiecewiseLinear.step(self.threshold or 0.0)
            )
        assert self.feature is not None
        feature = sources.feature(self.feature)
        if self.read == "raw":
            threshold = feature.threshold if self.threshold is None else self.threshold
            return GateFunction(
                f"{feature.name} (raw)", feature.encoder, 0.0, PiecewiseLinear.step(threshold)
            )
        return feature_gate(feature, self.threshold)

    def opening(self, sources: Lookup) -> Opening | None:
        """The gate as one read-out of the stream as it is; None where it is not one."""
        gate = self.function(sources)
        if gate.normalization is not Normalization.NONE or len(gate.open.breakpoints) != 1:
            return None
        (threshold,) = gate.open.breakpoints
        return Opening(
            f"{gate.name} is {self._how}",
            GateReadOut(gate.encoder, gate.bias, threshold),
            self.feature,
        )

    @property
    def _how(self) -> str:
        """From where on it is open, as far as the recipe says it."""
        if self.threshold is not None:
            return f"above {self.threshold:g}"
        if self.contrast is not None:
            return "above halfway"
        if self.probe is not None:
            return "above 0"
        return "active" if self.read == "pre_activation" else "above its threshold"


def feature_gate(feature: Feature, threshold: float | None = None) -> GateFunction:
    """Where the pre-activation exceeds `threshold`; where the feature is active if None."""
    return GateFunction(
        feature.name,
        feature.encoder,
        feature.bias,
        feature.active if threshold is None else PiecewiseLinear.step(threshold),
        feature.normalization,
    )
