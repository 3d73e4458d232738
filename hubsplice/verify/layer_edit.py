"""What an inserted layer adds to the stream, against what the hook would add to the same stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hubsplice.intervention import Site
from hubsplice.model import Model, decoder_layers


class LayerEdit:
    """Sums over the tokens that passed through one inserted layer, sinks left out.

    Attributes:
        site: the edit that the layer stands for.
        wanted: the sum of squares of what the hook would add.
        made: the same of what the layer adds.
        wrong: the same of the difference.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.wanted = self.made = self.wrong = 0.0

    def add(self, before: Tensor, after: Tensor) -> None:
        """Count tokens by the stream before and after the layer, both [..., d]."""
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
def observing(model: Model, layers: Mapping[int, LayerEdit]) -> Iterator[None]:
    """Count what passes through inserted layers, by their index, while the context lasts."""

    def watch(edit: LayerEdit) -> Any:
        def run(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            edit.add(before, output[0] if isinstance(output, tuple) else output)

        return run

    modules = decoder_layers(model)
    handles = [
        modules[index].register_forward_hook(watch(edit), with_kwargs=True)
        for index, edit in layers.items()
    ]
    try:
        with torch.inference_mode():
            yield
    finally:
        for handle in handles:
            handle.remove()
