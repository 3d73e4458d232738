"""What inserted layers add to the stream, against what the hook would add to the same stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from hubsplice.fidelity.inserted import InsertedAt, watching
from hubsplice.intervention.site import Site
from hubsplice.streams.model import Model


class LayerEdit:
    """Sums over the tokens that passed through the layers of one splice, sinks left out.

    Attributes:
        site: the edit that they stand for.
        wanted: the sum of squares of what the hook would add.
        made: the same of what the layers add.
        wrong: the same of the difference.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.wanted = self.made = self.wrong = 0.0

    def add(self, before: Tensor, after: Tensor) -> None:
        """Count tokens by the stream before and after the layers, both [..., d]."""
        before, after = before.float(), after.float()
        ordinary = ~self.site.is_sink(before)
        wanted = self.site.delta(before)[ordinary].double()
        made = (after - before)[ordinary].double()
        self.wanted += float(wanted.square().sum())
        self.made += float(made.square().sum())
        self.wrong += float((made - wanted).square().sum())

    @property
    def error(self) -> float | None:
        """The root mean square of what is wrong, relative to the edit; None where it never acts."""
        return (self.wrong / self.wanted) ** 0.5 if self.wanted else None


@contextmanager
def observing(model: Model, layers: Iterable[tuple[InsertedAt, LayerEdit]]) -> Iterator[None]:
    """Count what passes through inserted layers while the context lasts."""
    with ExitStack() as stack:
        for inserted, edit in layers:
            stack.enter_context(watching(model, inserted, edit.add))
        stack.enter_context(torch.inference_mode())
        yield
