"""Strengths as a recipe writes them: a number, `0.5 x max`, or `0.3 x norm`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

_PATTERN = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*[x×*]\s*(max|norm)\s*$")


@dataclass(frozen=True)
class Amount:
    """A strength and what it is counted in.

    `unit` is `sae` (the SAE's own activations; for a plain vector, multiples of that vector),
    `max` (the feature's largest activation in calibration, or the one that the edit states) or
    `norm` (the site's median residual norm in calibration: the written vector gets that length).
    """

    value: float
    unit: Literal["sae", "max", "norm"] = "sae"

    def __str__(self) -> str:
        return f"{self.value:g}" if self.unit == "sae" else f"{self.value:g} x {self.unit}"


_PLAIN_NUMBER = re.compile(r"^\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*$")
"""A strength as text that names no unit."""


def parse_amount(text: str) -> Amount:
    """A strength as text, as a command line has it.

    Raises:
        ValueError: it is none.
    """
    number = float(text) if _PLAIN_NUMBER.match(text) else None
    amount: Amount = _parse(text if number is None else number)
    return amount


def _parse(value: Any) -> Any:
    if isinstance(value, Amount):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return Amount(float(value))
    if isinstance(value, str):
        match = _PATTERN.match(value)
        if match and math.isfinite(float(match[1])):
            return Amount(float(match[1]), "max" if match[2] == "max" else "norm")
    raise ValueError(f"expected a number, or one like '0.5 x max' or '0.3 x norm', found {value!r}")


Strength = Annotated[
    Amount,
    BeforeValidator(_parse),
    PlainSerializer(
        lambda amount: amount.value if amount.unit == "sae" else f"{amount.value!r} x {amount.unit}"
    ),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number"},
                {"type": "string", "pattern": r"^\s*[-+]?[0-9.eE+-]+\s*[x×*]\s*(max|norm)\s*$"},
            ]
        }
    ),
]

StatedMaximum = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
    Field(
        description="The feature's largest activation, which `x max` then counts in. Default: the "
        "largest one on the calibration text, which is far too small where the feature is rare "
        "there. It is in the SAE's own units, as SAELens gives activations. Neuronpedia shows "
        "activations times the length of the feature's decoder row: divide its number by that "
        "length where it is not 1."
    ),
]
