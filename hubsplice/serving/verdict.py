"""Whether an engine serves a spliced model as it is."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from hubsplice.serving.engines import Engine
from hubsplice.serving.requirements import Requirements


class Outcome(enum.StrEnum):
    """What becomes of a spliced model in an engine."""

    WORKS = "works"
    NEEDS = "needs"
    REFUSES = "refuses"
    UNKNOWN = "not known"


@dataclass(frozen=True)
class Verdict:
    """An outcome and why.

    Attributes:
        engine: the engine.
        outcome: REFUSES where the engine would ignore something and serve another model.
        reason: what is needed, what would be ignored, or what is not known; empty where the model
            just works.
        evidence: how that is known of the version that was examined; empty where it is not.
    """

    engine: Engine
    outcome: Outcome
    reason: str = ""
    evidence: str = ""


def verdict(engine: Engine, requirements: Requirements) -> Verdict:
    """What becomes of a model with these requirements in an engine."""
    name = requirements.model_class
    support = engine.classes.get(name)
    if support is None:
        return Verdict(
            engine,
            Outcome.UNKNOWN,
            f"nobody has examined whether it honours all that a spliced {name} needs",
        )
    ignored = [
        *(f"{projection}.bias" for projection in requirements.biases & support.ignored_biases),
        *(requirements.layer_fields & support.ignored_fields),
    ]
    if ignored:
        note = f": {support.note}" if support.note else ""
        reason = f"it ignores {_listed(sorted(ignored))} of {name}{note}"
        return Verdict(engine, Outcome.REFUSES, reason, support.evidence.value)
    outcome = Outcome.NEEDS if engine.needs else Outcome.WORKS
    return Verdict(engine, outcome, engine.needs or support.note, support.evidence.value)


def _listed(words: Iterable[str]) -> str:
    """Words as a list in a sentence; one or more."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
