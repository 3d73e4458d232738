"""Figures that are worth having, and not worth losing a build for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from hubsplice.errors import UnsupportedError, first_line

Figure = TypeVar("Figure")

LEFT_OUT = "left out: "
"""What the reason begins with where something was not even tried."""


@dataclass
class Missing:
    """What could not be made.

    Attributes:
        reasons: one sentence each.
    """

    reasons: list[str] = field(default_factory=list)

    def attempt(self, name: str, make: Callable[[], Figure]) -> Figure | None:
        """What `make` gives, or None and a reason more.

        Args:
            name: of the figure, in words.
            make: may raise anything: models are of many classes, and generate in their own ways.
        """
        try:
            return make()
        except UnsupportedError as error:
            reason = f"{LEFT_OUT}{name}: {first_line(error)}"
        except Exception as error:  # noqa: BLE001 - whatever it is, the other figures stand
            reason = f"{name} could not be made: {first_line(error)}"
        if reason not in self.reasons:
            self.reasons.append(reason)
        return None
