"""The layers of one splice alone: streams of one's own choice go in, and what leaves is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubsplice.fidelity.inserted import InsertedAt
from hubsplice.streams.in_step import layer_calls
from hubsplice.streams.model import Model, decoder_layers, removed_afterwards
from hubsplice.streams.on_disk import held

_TOKENS_AT_ONCE = 512


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
    calls = layer_calls(model, chosen)[first : inserted.index + 1]

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
        for module in modules:
            stack.enter_context(held(module))
        if inserted.carrier is not None:
            carrier = modules[-1].get_submodule(inserted.carrier)
            handle = carrier.register_forward_pre_hook(_nothing)
            stack.enter_context(removed_afterwards([handle]))
        yield made


def _nothing(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (torch.zeros_like(inputs[0]), *inputs[1:])
