"""When an edit acts: a gate that reads anything, or several of them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, FiniteFloat, model_validator

from hubsplice.edits.lookup import Lookup, source_name
from hubsplice.edits.opening import Opening
from hubsplice.edits.reading import Reading
from hubsplice.errors import FieldError, RecipeError, UnsupportedError, quoted, within
from hubsplice.features.base import Feature
from hubsplice.features.references import SaeSource
from hubsplice.intervention.condition import GateReadOut
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear

_MOST = 3
_OF_SOURCES = ("path", "tensor", "row", "weight", "bias")
_OPPOSITE = (
    "a condition is that a read-out is above a value; for the opposite give a vector or a probe "
    "with the opposite sign"
)
_JOINED_ONCE = "conditions are joined by `all` or by `any`, and not joined again"


class Above(Reading):
    """Tokens at which a read-out is above a value."""

    what: ClassVar[str] = "a condition is"
    example: ClassVar[str] = "{feature: 12, above: 3}"
    no_fields: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("below", "under", "not"), _OPPOSITE),
        **dict.fromkeys(("all", "any", "and", "or"), _JOINED_ONCE),
    }

    above: FiniteFloat | None = Field(
        None,
        description="Where the read-out is above this: of a feature its activation, in the SAE's "
        "units; ⟨v, h⟩ of a vector or a contrast; ⟨w, h⟩ + b of a probe. Default: where the "
        "feature is active; 0 for a probe; halfway between the two means for a contrast. A vector "
        "has no default.",
    )

    sae: SaeSource | None = Field(
        None,
        description="The SAE of `feature`, where it is not the splice's. It has to read the stream "
        "at the place of the edit.",
    )
    label: str | None = Field(None, description="What the read-out means, for the card.")

    @model_validator(mode="after")
    def _says_how_much(self) -> Self:
        if self.sae is not None and self.feature is None:
            raise FieldError(("sae",), "it belongs beside a `feature`, and says whose it is")
        if self.vector is not None and self.above is None:
            raise FieldError(
                ("above",),
                "missing; a vector has no value of its own to be above, expected a number",
            )
        if self.feature is not None and self.above is not None and self.above < 0:
            raise FieldError(
                ("above",),
                f"found {self.above:g}, expected 0 or more, since no activation is below 0",
            )
        return self

    def opening(self, sources: Lookup) -> Opening:
        """The gate, looked up.

        Raises:
            RecipeError: the sources don't have what it reads.
            UnsupportedError: the feature is not read off the stream as it is, or not above one
                value alone.
        """
        if self.feature is not None:
            with within("feature"):
                if self.sae is not None:
                    return self._of_feature(None, sources.gate_feature(self.feature, self.sae))
                return self._of_feature(self.feature, sources.feature(self.feature))
        if self.vector is not None:
            assert self.above is not None
            with within("vector", _OF_SOURCES):
                name, vector = source_name("vector", self.vector), sources.vector(self.vector)
            return Opening(f"{name} is above {self.above:g}", GateReadOut(vector, 0.0, self.above))
        if self.contrast is not None:
            with within("contrast"):
                learned = sources.contrast(self.contrast)
            above = learned.threshold if self.above is None else self.above
            where = "halfway" if self.above is None else f"{above:g}"
            return Opening(
                f"{self.contrast.title} is above {where}", GateReadOut(learned.vector, 0.0, above)
            )
        assert self.probe is not None
        with within("probe", _OF_SOURCES):
            probe = sources.probe(self.probe)
        above = self.above or 0.0
        return Opening(
            f"{probe.name} is above {above:g}", GateReadOut(probe.weight, probe.bias, above)
        )

    def labelled(self, sources: Lookup) -> Opening:
        """The gate, looked up, with what it means in its words."""
        opening = self.opening(sources)
        return replace(
            opening, words=f"{opening.words} ({self.label})" if self.label else opening.words
        )

    def _of_feature(self, index: int | None, feature: Feature) -> Opening:
        if feature.normalization is not Normalization.NONE:
            raise UnsupportedError(
                f"{feature.name} is of an SAE that normalises its input "
                f"({feature.normalization.value}): its activation depends on each token's own "
                "scale, and a condition reads the stream as it is; use a probe or a vector"
            )
        opened = feature.active
        if self.above is not None:
            opened = feature.activation.then(PiecewiseLinear.step(self.above))
        if len(opened.breakpoints) != 1 or any(opened.slopes) or opened.intercepts != (0.0, 1.0):
            raise UnsupportedError(
                f"{feature.name} is active on both sides of its pre-activation, as features "
                "of AbsTopK are; say above which activation"
            )
        how = f"above {self.above:g}" if self.above else "active"
        return Opening(
            f"{feature.name} is {how}",
            GateReadOut(feature.encoder, feature.bias, opened.breakpoints[0]),
            index,
        )


class When(Above):
    """Tokens at which an edit acts: one read-out above a value, or two or three together."""

    ways: ClassVar[tuple[str, ...]] = (*Above.ways, "all", "any")

    all: tuple[Above, ...] | None = Field(None, description="Where all of two or three are above.")
    any: tuple[Above, ...] | None = Field(
        None, description="Where at least one of two or three is above."
    )

    @model_validator(mode="after")
    def _of_one(self) -> Self:
        if self.parts is None:
            return self
        for name in ("above", "label"):
            if (value := getattr(self, name)) is not None:
                raise FieldError(
                    (name,), f"found {quoted(value)}, which belongs to the members of {self._way}"
                )
        if not 2 <= len(self.parts) <= _MOST:
            raise FieldError(
                (self._way,), f"found {len(self.parts)} of them, expected 2 to {_MOST}"
            )
        return self

    @property
    def parts(self) -> tuple[Above, ...] | None:
        """The members of `all` or `any`; None for one read-out."""
        return self.any if self.all is None else self.all

    @property
    def members(self) -> tuple[Above, ...]:
        """Those of `all` or `any`; itself, if it is one read-out."""
        return (self,) if self.parts is None else self.parts

    @property
    def _way(self) -> str:
        return "any" if self.all is None else "all"

    @property
    def needed(self) -> int:
        """How many of the members must hold."""
        return len(self.all) if self.all else 1

    def openings(self, sources: Lookup) -> tuple[Opening, ...]:
        """Its gates, looked up.

        Raises:
            HubspliceError: as `Above.opening`, or two of them read the same feature.
        """
        found: list[Opening] = []
        read: set[tuple[SaeSource | None, int]] = set()
        for field, part in self.fields():
            with within(field):
                found.append(part.labelled(sources))
            if part.feature is None:
                continue
            if (part.sae, part.feature) in read:
                raise RecipeError(
                    f"found {part.feature}, which another one of them reads already; one says it "
                    "all",
                    field=f"{field}.feature",
                )
            read.add((part.sae, part.feature))
        return tuple(found)

    def fields(self) -> Iterator[tuple[str, Above]]:
        """Its members, or itself, each with what the recipe calls it."""
        if self.parts is None:
            yield "when", self
        else:
            for number, part in enumerate(self.parts):
                yield f"when.{self._way}[{number}]", part

    def with_saes(self, saes: Mapping[SaeSource, SaeSource | None]) -> Self:
        """The same with other names for some SAEs; None for the splice's own."""

        def renamed(part: Above) -> Above:
            sae = None if part.sae is None else saes.get(part.sae, part.sae)
            return part.model_copy(update={"sae": sae})

        if self.parts is None:
            return self.model_copy(update={"sae": renamed(self).sae})
        return self.model_copy(update={self._way: tuple(map(renamed, self.parts))})

    def words(self, openings: tuple[Opening, ...]) -> str:
        """Where it holds, as labels and reports say it."""
        joint = " and " if self.needed == len(openings) else " or "
        return joint.join(opening.words for opening in openings)

    def feature_indices(self) -> tuple[int, ...]:
        """The features of the splice's SAE that it reads."""
        return tuple(
            part.feature for part in self.members if part.feature is not None and part.sae is None
        )
