"""What the strengths of an edit come to: in the SAE's own units, and beside the stream.

Manifests and reports hold these records, so they need no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True)
class Activity:
    """How active a feature is on calibration text, in the SAE's own units.

    Attributes:
        maximum: its largest activation.
        mean: its mean where it is active; 0 where it never is.
        active_tokens: the tokens on which it is active.
        scanned_tokens: the tokens that were looked at, sinks left out.
    """

    maximum: float
    mean: float
    active_tokens: Annotated[int, Field(ge=0)]
    scanned_tokens: Annotated[int, Field(ge=0)]

    def with_more(self, other: Activity) -> Activity:
        """The same of both texts together."""
        active = self.active_tokens + other.active_tokens
        total = self.mean * self.active_tokens + other.mean * other.active_tokens
        return Activity(
            maximum=max(self.maximum, other.maximum),
            mean=total / active if active else 0.0,
            active_tokens=active,
            scanned_tokens=self.scanned_tokens + other.scanned_tokens,
        )

    def or_else(self, maximum: float) -> Activity:
        """The same, with this maximum where the feature is never active."""
        return self if self.maximum > 0 else replace(self, maximum=maximum)

    def __str__(self) -> str:
        return (
            f"{self.maximum:.4g}, over {self.active_tokens:,} active of {self.scanned_tokens:,} "
            "scanned tokens"
        )


@dataclass(frozen=True)
class ResolvedAmount:
    """One strength of an edit, as the recipe has it and as what it comes to.

    What only calibration can say is None until then.
    """

    stated: Annotated[str, Field(description="As the recipe has it, such as `0.5 x max`.")]
    value: Annotated[
        float | None,
        Field(
            description="The multiple of the direction. For a feature, an activation in the SAE's "
            "own units."
        ),
    ]
    share: Annotated[
        float | None,
        Field(
            description="The length that it writes, as a share of the median residual norm at the "
            "site; of each token's own norm for an SAE that normalises its input."
        ),
    ] = None
    own_norm: Annotated[
        bool, Field(description="Whether it is a share of each token's own norm.")
    ] = False
    direction_norm: Annotated[
        float | None, Field(description="The length of the direction: a decoder row or a vector.")
    ] = None
    stated_max: Annotated[
        float | None, Field(description="The feature's maximum as the recipe states it.")
    ] = None
    activity: Annotated[
        Activity | None, Field(description="Of the feature, in calibration; null for a vector.")
    ] = None
    of_max: Annotated[
        float | None, Field(description="The value as a multiple of the feature's maximum.")
    ] = None

    def __str__(self) -> str:
        """`0.5 x max = 8.8 (max 17.6, over 214 active of 2,100,000 scanned tokens), …`."""
        text = self.stated
        if self.value is not None and f"{self.value:.4g}" != text:
            text += f" = {self.value:.4g}"
        known = []
        if self.stated_max is not None:
            known.append(f"max {self.stated_max:.4g}, as stated")
        if self.activity is not None:
            known.append(f"{'measured' if known else 'max'} {self.activity}")
        if known:
            text += f" ({'; '.join(known)})"
        if self.value is None:
            text += ", which the build measures"
        if self.share is not None:
            norm = "each token's residual norm" if self.own_norm else "the median residual norm"
            text += f", {self.share:.3g} of {norm}"
        return text


@dataclass(frozen=True)
class EditAmounts:
    """What the strengths of one edit come to.

    Attributes:
        label: what a report calls the edit.
        amounts: one or more.
    """

    label: str
    amounts: tuple[ResolvedAmount, ...]

    def __str__(self) -> str:
        return f"{self.label}: {'; '.join(map(str, self.amounts))}"
