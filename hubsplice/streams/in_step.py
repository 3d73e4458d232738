"""Several variants of a model in step: each layer is entered once, and passed by all of them.

A model's own forward pass prepares what its layers are called with: masks, positions, rotary
embeddings. It is run with stand-ins for the layers, which remember their calls and compute nothing.
The layers are then called with the same arguments, one after another, each for every variant and
every batch. At the end the model's own pass, again with stand-ins, makes its last hidden states of
the streams. So a layer is read from the disk once, and nothing is known here of any family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hubsplice.errors import CheckpointError
from hubsplice.streams.aside import Aside
from hubsplice.streams.kept import Kept
from hubsplice.streams.layers import Model, StopEarly, decoder_layers
from hubsplice.streams.on_disk import held

Hooks = Callable[[], AbstractContextManager[None]]
"""What is on the model while a variant passes a layer."""


@dataclass(frozen=True, eq=False)
class LayerCall:
    """A decoder layer, and all that the model calls it with beside the stream."""

    layer: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, h: Tensor) -> Tensor:
        """What leaves the layer for a stream [sequences, length, d], hooks included."""
        output = self.layer(h, *self.args, **self.kwargs)
        return output[0] if isinstance(output, tuple) else output


@dataclass(frozen=True, eq=False)
class Entered:
    """Streams on their way through a model, batch by batch.

    Attributes:
        layer: the layer that they enter next.
        hidden: by batch, shape [sequences, length, d], on the CPU.
    """

    layer: int
    hidden: tuple[Tensor, ...]


class InStep:
    """A model, and the batches of tokens that pass it."""

    def __init__(self, model: Model, batches: Sequence[Tensor]) -> None:
        """Prepare the calls of all layers.

        Args:
            model: the model; hooks on it act while streams pass.
            batches: token ids, each of shape [sequences, length].
        """
        self._model, self._batches = model, tuple(batches)
        self._calls: dict[tuple[int, ...], tuple[LayerCall, ...]] = {}
        self.layers = len(decoder_layers(model))
        self._kept: Kept | None = getattr(model, "kept", None)
        width = model.config.get_text_config().hidden_size * model.dtype.itemsize
        self.aside = Aside.of(width * sum(ids.numel() for ids in self._batches))

    def start(self) -> Entered:
        """The embeddings, before the first layer."""
        found = []
        with torch.inference_mode():
            for ids in self._batches:
                calls, h, _ = _passed(self._model, ids.to(self._model.device), None)
                self._calls.setdefault(tuple(ids.shape), calls)
                found.append(self.aside.put(h))
        return Entered(0, tuple(found))

    def reach(self, layer: int, progress: Callable[[float], None] = lambda _: None) -> Entered:
        """The streams before a layer, of a model on which nothing is before that layer.

        They are taken from what is kept, where the model has such, and kept where they are new.
        """
        kept = self._kept
        if kept is None or layer == 0:
            return self.through(self.start(), layer, progress=progress)[0]
        found = [self._put(kept.get(ids, layer)) for ids in self._batches]
        lacking = [ids for ids, h in zip(self._batches, found, strict=True) if h is None]
        if lacking:
            part = InStep(self._model, lacking)
            new = iter(part.through(part.start(), layer, progress=progress)[0].hidden)
            for i, ids in enumerate(self._batches):
                if found[i] is None:
                    found[i] = h = next(new)
                    kept.put(ids, layer, h)
        return Entered(layer, tuple(h for h in found if h is not None))

    def known(self, layer: int) -> Entered | None:
        """The streams before a layer of a bare model, where all of them are kept."""
        if self._kept is None:
            return None
        every = (self._put(self._kept.get(ids, layer)) for ids in self._batches)
        found = [h for h in every if h is not None]
        return Entered(layer, tuple(found)) if len(found) == len(self._batches) else None

    def _put(self, h: Tensor | None) -> Tensor | None:
        return None if h is None else self.aside.put(h)

    def keep(self, entered: Entered) -> None:
        """Keep streams of a bare model, where it is to be kept."""
        if self._kept is not None:
            for ids, h in zip(self._batches, entered.hidden, strict=True):
                self._kept.put(ids, entered.layer, h)

    def through(
        self,
        entered: Entered,
        end: int,
        variants: Sequence[Hooks] = (nullcontext,),
        progress: Callable[[float], None] = lambda _: None,
        sequences: Sequence[int | None] | None = None,
    ) -> tuple[Entered, ...]:
        """Pass the layers before `end`, one variant after another in each.

        Args:
            entered: where all variants begin.
            end: the layer that is not passed any more.
            variants: what is on the model for each.
            progress: told which part of the way is done.
            sequences: by variant, how many sequences pass, the first ones; None for all of them.

        Returns:
            By variant, the streams before `end`; where a hook raises `StopEarly` in the last
            layer, those before that layer.
        """
        device = self._model.device
        streams = [
            list(_first(entered.hidden, count)) for count in sequences or [None] * len(variants)
        ]
        # What they begin with is not theirs to write over.
        own: list[list[Tensor | None]] = [[None] * len(hidden) for hidden in streams]
        steps, done = max(1, (end - entered.layer) * sum(map(len, streams))), 0
        with torch.inference_mode():
            for index in range(entered.layer, end if variants else entered.layer):
                with held(decoder_layers(self._model)[index]):
                    for hooks, hidden, mine in zip(variants, streams, own, strict=True):
                        with hooks():
                            for i, h in enumerate(hidden):
                                progress(done / steps)
                                with suppress(StopEarly):
                                    left = self._calls_of(h.shape[:2])[index](h.to(device))
                                    hidden[i] = mine[i] = self.aside.put(left, mine[i])
                                done += 1
        return tuple(Entered(end, tuple(hidden)) for hidden in streams)

    def finish(self, entered: Entered) -> Tensor:
        """The last hidden states, shape [sequences, length, d], on the CPU, of what has passed."""
        found = []
        with torch.inference_mode():
            # Of a variant that only the first sequences pass, there are fewer.
            for ids, h in zip(self._batches, entered.hidden, strict=False):
                device = self._model.device
                last = _passed(self._model, ids[: len(h)].to(device), h.to(device))[2]
                found.append(self.aside.put(last))
        return self.aside.joined(found)

    def _calls_of(self, shape: Sequence[int]) -> tuple[LayerCall, ...]:
        # They depend on the positions of tokens, and not on the tokens.
        key = tuple(shape)
        if key not in self._calls:
            self._calls[key] = layer_calls(self._model, torch.zeros(key, dtype=torch.long))
        return self._calls[key]


def _first(hidden: Sequence[Tensor], count: int | None) -> Iterator[Tensor]:
    """The first sequences of some batches; all of them where `count` is None."""
    left = sum(map(len, hidden)) if count is None else count
    for h in hidden:
        if left > 0:
            yield h[:left]
        left -= len(h)


def layer_calls(model: Model, ids: Tensor) -> tuple[LayerCall, ...]:
    """How a model calls each of its layers on tokens [sequences, length]; none is run."""
    with torch.inference_mode():
        return _passed(model, ids.to(model.device), None)[0]


class _StandIn(nn.Module):
    """Remembers how a layer is called, and hands the stream on."""

    def __init__(self, layer: nn.Module, leaves: Tensor | None) -> None:
        super().__init__()
        # No submodule, which it would share with the model.
        self.__dict__.update(stands_for=layer, leaves=leaves, entered=None, call=None)

    def __getattr__(self, name: str) -> Any:
        # Models ask their layers what kind of attention they have.
        return getattr(self.__dict__["stands_for"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        named = "hidden_states" in kwargs
        h: Tensor = kwargs["hidden_states"] if named else args[0]
        others = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        call = LayerCall(self.stands_for, args if named else args[1:], others)
        self.__dict__.update(entered=h, call=call)
        return h if self.leaves is None else self.leaves


def _passed(
    model: Model, ids: Tensor, leaves: Tensor | None
) -> tuple[tuple[LayerCall, ...], Tensor, Tensor]:
    """The calls of all layers, what enters the first, and the last states if `leaves` leaves."""
    layers = list(decoder_layers(model))
    stand_ins = [_StandIn(layer, leaves if layer is layers[-1] else None) for layer in layers]
    with _replaced(model, stand_ins):
        last: Tensor = model.base_model(ids, use_cache=False).last_hidden_state
    calls = tuple(s.call for s in stand_ins if s.call is not None)
    entered = [s.entered for s in stand_ins]
    if len(calls) != len(layers) or any(h is not entered[0] for h in entered):
        raise CheckpointError(
            f"{type(model).__name__}: this version of transformers calls its layers in a way "
            "that is not known here"
        )
    return calls, entered[0], last


@contextmanager
def _replaced(model: Model, stand_ins: Sequence[nn.Module]) -> Iterator[None]:
    decoder = model.get_decoder()
    name = "h" if hasattr(decoder, "h") else "layers"
    layers = getattr(decoder, name)
    setattr(decoder, name, nn.ModuleList(stand_ins))
    try:
        yield
    finally:
        setattr(decoder, name, layers)
