"""What is known of a family: on which weights its construction was measured, and where that is."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass


class Weights(enum.StrEnum):
    """The best that a family's construction was measured on."""

    REAL = "a released model"
    STREAM = "the stream of another family"
    TINY = "tiny models"


@dataclass(frozen=True)
class Measured:
    """Figures of a construction in a family.

    Attributes:
        model: what was measured.
        results: the file in `benchmarks/results` that holds the figures.
        date: when.
    """

    model: str
    results: str
    date: datetime.date


GGUF = "from a 4-bit GGUF file, de-quantised to bfloat16"
"""What the released weights that are measured here went through."""

BEHIND_SMOLLM2 = (
    Measured(
        "its construction behind the stream of SmolLM2-135M-Instruct",
        "constructions.md",
        datetime.date(2026, 11, 26),
    ),
)
"""Families whose construction was computed on that stream, all of them in one table."""
