"""Clamp: hold the feature at a value, everywhere or where it is active."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag
from typing_extensions import override

from hubsplice.edits.base import Role
from hubsplice.edits.feature_edit import FeatureEdit
from hubsplice.edits.lookup import Sources
from hubsplice.edits.registry import EDITS
from hubsplice.edits.strength import StatedMaximum, Strength
from hubsplice.edits.units import activation_units
from hubsplice.edits.when import When
from hubsplice.features.base import Feature
from hubsplice.intervention.piecewise_linear import PiecewiseLinear


def _is_condition(value: Any) -> str:
    return "word" if isinstance(value, str) else "When"


_When = Annotated[
    Annotated[Literal["always", "active"], Tag("word")] | Annotated[When, Tag("When")],
    Discriminator(_is_condition),
]


@EDITS.register("clamp")
class Clamp(FeatureEdit):
    """Replace the feature's activation by a constant."""

    summary: ClassVar[str] = "hold the feature at a value, always or only where it is active"
    formula: ClassVar[str] = "always: h + (to − f)·d; when active: h + 1[f active]·(to − f)·d"
    role: ClassVar[Role] = Role.HOLDS

    kind: Literal["clamp"] = "clamp"
    to: Strength = Field(description="The activation to hold the feature at.")
    max: StatedMaximum = None
    # Wider than what other kinds take.
    when: _When = Field(  # type: ignore[assignment]
        "always",
        description="At every token, only where the feature is active, or where a condition holds.",
    )

    @property
    @override
    def condition(self) -> When | None:
        return self.when if isinstance(self.when, When) else None

    @override
    def function(self, feature: Feature, sources: Sources) -> PiecewiseLinear:
        value = activation_units(sources, self.to, feature, self.max)
        where = feature.active if self.when == "active" else PiecewiseLinear.constant(1.0)
        return where.scaled(value) + feature.activation.scaled(-1.0)
