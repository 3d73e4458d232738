"""What inserted layers add to the stream, against what the hook would add to the same stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hubsplice.intervention import Site
from hubsplice.model import Model, decoder_layers


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
def observing(model: Model, edits: Mapping[tuple[int, int], LayerEdit]) -> Iterator[None]:
    """Count what passes through inserted layers while the context lasts.

    Args:
        model: the spliced model.
        edits: by the indices of the first and the last layer that stand for the edit.
    """
    entering: dict[int, Tensor] = {}

    def enter(index: int) -> Any:
        def run(_module: nn.Module, args: Any, kwargs: Any) -> None:
            entering[index] = args[0] if args else kwargs["hidden_states"]

        return run

    def leave(index: int, edit: LayerEdit) -> Any:
        def run(_module: nn.Module, _inputs: Any, output: Any) -> None:
            edit.add(entering.pop(index), output[0] if isinstance(output, tuple) else output)

        return run

    modules = decoder_layers(model)
    handles = []
    for (first, last), edit in edits.items():
        handles.append(modules[first].register_forward_pre_hook(enter(first), with_kwargs=True))
        handles.append(modules[last].register_forward_hook(leave(first, edit)))
    try:
        with torch.inference_mode():
            yield
    finally:
        for handle in handles:
            handle.remove()
