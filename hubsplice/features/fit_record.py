"""Whether an SAE fits the stream that it reads, as a record and in words.

Manifests and reports hold it, so it needs no PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from hubsplice.features.amounts import Activity

MISFIT = 0.0
"""An SAE that explains less of the variance is refused: the stream's mean explains as much."""

DOUBTFUL = 0.5
"""One that explains less is warned of, where its files don't state what it explains."""

_SHORTFALL = 0.2
_L0_FACTOR = 3.0


@dataclass(frozen=True)
class SaeFit:
    """How well an SAE fits a base model at one place, on calibration text, sinks apart."""

    features: Annotated[
        dict[str, Activity], Field(description="Of the edited features, by their names.")
    ]
    tokens: Annotated[int, Field(ge=0, description="The tokens that it was judged on.")]
    not_judged: Annotated[
        str | None, Field(description="Why it could not be judged; null where it was.")
    ] = None
    variance_explained: Annotated[
        float | None,
        Field(description="1 − Σ‖h − reconstruction‖² / Σ‖h − mean‖²; 1 is a perfect fit."),
    ] = None
    l0: Annotated[
        float | None, Field(description="How many features are active at a token, on average.")
    ] = None
    silent: Annotated[
        float | None, Field(description="The share of features that are active at no token.")
    ] = None
    stated_variance: Annotated[
        float | None, Field(description="What its files or SAELens's registry say it explains.")
    ] = None
    stated_l0: Annotated[
        float | None, Field(description="What they say of the number of active features.")
    ] = None

    @property
    def misfit(self) -> bool:
        """Whether its features can't mean here what they mean where it was trained."""
        return self.variance_explained is not None and self.variance_explained < MISFIT

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against the fit, in words."""
        found = list(self._doubts())
        if found:
            found[-1] += (
                "; the SAE may be of another model or layer, or read the stream at another scale, "
                "and its features then mean something else here, or nothing"
            )
        return tuple(found)

    def _doubts(self) -> Iterator[str]:
        variance, stated = self.variance_explained, self.stated_variance
        if variance is not None:
            expected = DOUBTFUL if stated is None else min(stated - _SHORTFALL, 1.0)
            if variance < max(expected, MISFIT):
                said = "" if stated is None else f", and {stated:.0%} according to its files"
                yield f"the SAE explains {_share(variance)} of the variance of the stream{said}"
        if self.l0 is not None and self.stated_l0:
            ratio = self.l0 / self.stated_l0
            if not 1 / _L0_FACTOR <= ratio <= _L0_FACTOR:
                yield (
                    f"{_count(self.l0)} of its features are active at a token, and "
                    f"{_count(self.stated_l0)} according to its files"
                )

    def __str__(self) -> str:
        if self.not_judged is not None or self.variance_explained is None:
            return f"whether the SAE fits was not judged: {self.not_judged or 'no reason is given'}"
        stated = f" (stated: {self.stated_variance:.0%})" if self.stated_variance else ""
        text = f"the SAE explains {_share(self.variance_explained)} of the variance{stated}"
        if self.l0 is not None:
            stated = f" (stated: {_count(self.stated_l0)})" if self.stated_l0 else ""
            text += f"; {_count(self.l0)} features are active at a token{stated}"
        if self.silent is not None:
            text += f", and {self.silent:.1%} of all features at none of {self.tokens:,}"
        return text


def _count(mean: float) -> str:
    return f"{mean:,.0f}" if mean >= 100 else f"{mean:.3g}"


def _share(variance: float) -> str:
    """A share in percent; below zero, the number itself."""
    return f"{variance:.0%}" if variance >= 0 else f"less than nothing ({variance:.3g})"
