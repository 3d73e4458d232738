"""What a scorer is: a small pydantic model that gives each answer a number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

from hubsplice.registry import Registry


@dataclass(frozen=True)
class Scorable:
    """An answer, as scorers see it.

    Attributes:
        prompt: what was asked.
        text: the answer.
        watched: the probability that its first token was one of those that the scorer watches.
    """

    prompt: str
    text: str
    watched: float = 0.0


class Scorer(BaseModel, ABC):
    """Base of all scorers; subclasses are registered with `SCORERS.register(kind)`.

    Class attributes:
        argument: the field that `KIND=…` on the command line fills; None for a kind without.
        costly: whether a score is kept in the record of a sweep, and never computed twice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    argument: ClassVar[str | None] = None
    costly: ClassVar[bool] = False

    kind: str

    @abstractmethod
    def score(self, answer: Scorable) -> float | None:
        """What an answer is worth; None where it doesn't count."""

    def ready(self) -> Self:
        """The scorer with what it names at hand and pinned; called once, before anything long."""
        return self

    def watched(self) -> tuple[str, ...]:
        """Words whose probability as an answer's first token the scorer needs."""
        return ()

    @property
    def name(self) -> str:
        """How a table calls it."""
        value = None if self.argument is None else getattr(self, self.argument)
        return self.kind if value is None else f"{self.kind}={value}"


SCORERS: Registry[type[Scorer]] = Registry("hubsplice.scorers")
