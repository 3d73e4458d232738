"""A carrier in memory with an adapter on it, computed as an engine computes it: not merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from hubsplice.adapters.carrier import Carrier
from hubsplice.constructions.slots import Factors
from hubsplice.streams.model import Model, removed_afterwards


@contextmanager
def attached(
    model: Model, carrier: Carrier, changes: Mapping[int, Mapping[str, Factors]]
) -> Iterator[None]:
    """Add an adapter's changes to what a carrier's linear maps give, while the context lasts.

    In the model's precision, with what is between the two factors rounded to it.
    """
    handles = []
    for splice, roles in changes.items():
        for role, name in carrier.modules(splice).items():
            module = model.get_submodule(name)
            handles.append(module.register_forward_hook(_adding(roles[role])))
    with removed_afterwards(handles):
        yield


def _adding(factors: Factors) -> Any:
    def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        a, b = (factor.to(x.device, x.dtype) for factor in (factors.a, factors.b))
        return output + functional.linear(functional.linear(x, a), b)

    return add
