"""The base of results: whoever says what is in them can be printed, and shown in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hubsplice.rendering.content import Part

if TYPE_CHECKING:
    from rich.console import RenderableType


class Rendered(ABC):
    """A result that shows itself.

    `print` and a Python prompt give plain text, rich gives colours, and a notebook gets HTML. A
    dataclass has to say `repr=False`, or its own `__repr__` hides the one here.
    """

    @abstractmethod
    def content(self) -> Iterable[Part]:
        """What the result says, the most important first."""

    def __rich__(self) -> RenderableType:
        from hubsplice.rendering.drawing import drawn

        return drawn(self.content())

    def __str__(self) -> str:
        from hubsplice.rendering.drawing import as_text

        return as_text(self.content())

    def _repr_html_(self) -> str:
        from hubsplice.rendering.html import as_html

        return as_html(self.content())

    def __repr__(self) -> str:
        return str(self)
