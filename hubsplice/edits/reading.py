"""What a gate reads of the stream, as a recipe says it."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hubsplice.features.examples import ContrastSource, LearnedProbe
from hubsplice.features.references import FeatureIndex, ProbeSource, TensorSource


class Reading(BaseModel):
    """Exactly one read-out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: ClassVar[str] = "a gate reads"
    ways: ClassVar[tuple[str, ...]] = ("feature", "vector", "contrast", "probe")

    feature: FeatureIndex | None = Field(None, description="Read this feature of the SAE.")
    vector: TensorSource | None = Field(None, description="Read ⟨v, h⟩.")
    contrast: ContrastSource | None = Field(
        None, description="Read ⟨v, h⟩ of a direction v that is learned from examples."
    )
    probe: ProbeSource | LearnedProbe | None = Field(
        None, description="Read ⟨w, h⟩ + b: a probe from a file, or one learned from examples."
    )

    @model_validator(mode="after")
    def _one_reading(self) -> Self:
        given = [name for name in self.ways if getattr(self, name) is not None]
        if len(given) != 1:
            *most, last = self.ways
            raise ValueError(
                f"{self.what} exactly one of {', '.join(most)} and {last}; "
                f"found {' and '.join(given) or 'none of them'}"
            )
        return self
