"""What a user should know of the maxima that strengths are counted in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hubsplice.features.amounts import ResolvedAmount

FEW_TOKENS = 20
"""A maximum over fewer active tokens than this says little."""

_BELOW, _ABOVE = 2.0, 5.0


def amount_warnings(amounts: Sequence[ResolvedAmount]) -> Iterator[str]:
    """Doubts about the amounts of one edit, once calibration has measured them."""
    for amount in amounts:
        if amount.activity is None:
            continue
        measured, active = amount.activity.maximum, amount.activity.active_tokens
        if amount.stated_max is None:
            if amount.stated.endswith("max") and active < FEW_TOKENS:
                yield (
                    f"{amount.stated}: the maximum {amount.activity} may be far too small; state "
                    "the feature's own (`max:`, as the SAE's page on Neuronpedia shows it), or "
                    "calibrate on text in which it is active (`calibration: {dataset: …, tokens: "
                    "…}`)"
                )
        elif measured > _BELOW * amount.stated_max or (
            measured * _ABOVE < amount.stated_max and active >= FEW_TOKENS
        ):
            yield (
                f"max: {amount.stated_max:.4g} is stated, and calibration measured {measured:.4g} "
                f"over {active:,} active tokens{_length(amount)}"
            )


def _length(amount: ResolvedAmount) -> str:
    norm = amount.direction_norm
    if norm is None or 0.95 < norm < 1.05:
        return ""
    return (
        f"; the decoder row's length is {norm:.4g}, by which a maximum from Neuronpedia has to be "
        "divided"
    )
