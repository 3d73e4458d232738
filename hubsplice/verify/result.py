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


class Verification(Record):
    """The outcome for one spliced checkpoint."""

    model: str
    base: str
    passed: bool
    verdict: str = Field(description="One sentence; first on the terminal.")
    checks: tuple[Check, ...]

    @staticmethod
    def of(model: str, base: str, checks: Sequence[Check], held: str) -> Verification:
        """The verdict over `checks`; `held` says what they prove where all of them pass."""
        missed = [check.name for check in checks if not check.passed]
        verdict = f"Verified: {held}."
        if missed:
            verdict = (
                f"NOT verified: {len(missed)} of {len(checks)} checks did not pass: "
                f"{', '.join(missed)}."
            )
        return Verification(
            model=model, base=base, passed=not missed, verdict=verdict, checks=tuple(checks)
        )
