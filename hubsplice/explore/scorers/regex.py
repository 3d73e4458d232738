"""Answers that a regular expression matches."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from hubsplice.explore.scorers.base import SCORERS, Scorable, Scorer


@SCORERS.register("regex")
class Regex(Scorer):
    """1 where a regular expression is found anywhere in the answer, and 0 elsewhere."""

    argument: ClassVar[str | None] = "pattern"

    kind: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1, description="In Python's syntax.")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return pattern

    def score(self, answer: Scorable) -> float:
        return float(re.search(self.pattern, answer.text) is not None)
