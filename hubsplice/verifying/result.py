"""What a verification found: named checks, and one verdict over all of them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """A part of the result."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Check(Record):
    """One thing that was checked."""

    name: str
    passed: bool | None = Field(description="Null where it could not be checked.")
    detail: str = Field(description="What holds, or in a line what does not.")
    problems: tuple[str, ...] = Field((), description="Each by the tensor, file or key it is at.")

    @staticmethod
    def of(name: str, problems: Sequence[str], held: str) -> Check:
        """A check that passes where there are no problems; `held` says what then holds."""
        if not problems:
            return Check(name=name, passed=True, detail=held)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        return Check(name=name, passed=False, detail=count, problems=tuple(problems))

    @staticmethod
    def impossible(name: str, reason: str) -> Check:
        """A check that could not be made, which proves nothing."""
        return Check(name=name, passed=None, detail=f"not checked: {reason}")
