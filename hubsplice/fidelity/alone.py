"""The layers of one splice alone: streams of one's own choice go in, and what leaves is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubsplice.fidelity.inserted import InsertedAt
from hubsplice.streams.model import Model, StopEarly, decoder_layers, removed_afterwards

_TOKENS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class _Call:
    """A decoder layer, and all that the model calls it with beside the stream."""

    layer: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, h: Tensor) -> Tensor:
        output = self.layer(h, *self.args, **self.kwargs)
        return output[0] if isinstance(output, tuple) else output


@contextmanager
def alone(model: Model, inserted: InsertedAt, ids: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """What the layers of one splice make of any stream, while the context lasts.

    Args:
        model: the spliced model.
        inserted: the splice.
        ids: tokens, shape [sequences, length]. The model calls its layers on some of them, and
            every later call is like that one, with another stream.

    Yields:
        A function of streams [tokens, d] in the model's dtype, of any number; what leaves the
        splice has the same shape. Where its MLP stands behind the attention of the base, that
        attention adds nothing but the edit's constant.
    """
    layers = decoder_layers(model)
    first = inserted.index if inserted.first is None else inserted.first
    modules = [layers[index] for index in range(first, inserted.index + 1)]
    chosen = ids[: max(1, _TOKENS_AT_ONCE // ids.shape[1])].to(model.device)
    calls = _calls(model, modules, chosen)

    def made(h: Tensor) -> Tensor:
        batch = chosen.numel()
        parts = []
        for part in torch.split(functional.pad(h, (0, 0, 0, -len(h) % batch)), batch):
            out = part.reshape(*chosen.shape, -1).to(model.device)
            for call in calls:
                out = call(out)
            parts.append(out.flatten(end_dim=1).to(h.device))
        return torch.cat(parts)[: len(h)]

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if inserted.carrier is not None:
            carrier = modules[-1].get_submodule(inserted.carrier)
            handle = carrier.register_forward_pre_hook(_nothing)
            stack.enter_context(removed_afterwards([handle]))
        yield made


def _nothing(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (torch.zeros_like(inputs[0]), *inputs[1:])


def _calls(model: Model, modules: Sequence[nn.Module], ids: Tensor) -> list[_Call]:
    calls: list[_Call] = []

    def remember(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = "hidden_states" in kwargs
        others = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        calls.append(_Call(layer, args if named else args[1:], others))
        if layer is modules[-1]:
            raise StopEarly

    handles = [m.register_forward_pre_hook(remember, with_kwargs=True) for m in modules]
    with removed_afterwards(handles), torch.inference_mode(), suppress(StopEarly):
        model.base_model(ids, use_cache=False)
    return calls
