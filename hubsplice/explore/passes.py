"""Examples through a model, and the activations of SAEs that read its stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from hubsplice.explore.examples import Example
from hubsplice.explore.sae_names import PlacedSae
from hubsplice.features.sae import LoadedSae
from hubsplice.intervention.place import Place
from hubsplice.streams.calibration import median_norm
from hubsplice.streams.model import Model, StopEarly, seeing
from hubsplice.text.rows import Row, padded

_TOKENS_AT_ONCE = 2048
_NUMBERS_AT_ONCE = 1 << 24
_SINK_MULTIPLE = 5.0
"""A token above this multiple of the median norm is an attention sink, as in a recipe."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Activations of one SAE at some tokens of one batch of examples.

    Attributes:
        sae: which SAE, as a number.
        activations: shape [tokens, features], float32, on the CPU.
        example: which example each token is of, shape [tokens].
        position: where in it, shape [tokens].
        last: whether this is the batch's last part for this SAE; all tokens of an example are in
            one batch.
    """

    sae: int
    activations: Tensor
    example: Tensor
    position: Tensor
    last: bool

    @property
    def numbers(self) -> list[int]:
        """The examples that the tokens are of, each once."""
        return sorted(set(self.example.tolist()))


class Reader:
    """A model and the SAEs that read it.

    The norm above which a token is an attention sink is that of the first batch that it reads, so
    that every text is held to the same.
    """

    def __init__(self, model: Model, saes: Sequence[PlacedSae]) -> None:
        self._model, self._saes = model, saes
        self._places = sorted({placed.place for placed in saes})
        self._sink_norms: dict[Place, float] = {}

    def read(
        self,
        examples: Sequence[Example],
        see: Callable[[Seen], None],
        progress: Callable[[int, int], None],
    ) -> None:
        """Run the examples, and show every SAE's activations at the tokens that count."""
        done = 0
        for batch in _batches(examples):
            progress(done, len(examples))
            rows = [Row(examples[i].ids, frozenset(), is_chat=False) for i in batch]
            ids, _ = padded(rows, max(len(row.ids) for row in rows))
            counted = torch.zeros_like(ids, dtype=torch.bool)
            for line, i in enumerate(batch):
                counted[line, examples[i].start : examples[i].end] = True
            streams = self._streams(ids)
            for number, placed in enumerate(self._saes):
                for part in self._activations(
                    number, placed, streams[placed.place], counted, batch
                ):
                    see(part)
            done += len(batch)
        progress(len(examples), len(examples))

    def _streams(self, ids: Tensor) -> dict[Place, Tensor]:
        found: dict[Place, Tensor] = {}
        last = self._places[-1]

        def keep(place: Place, h: Tensor) -> None:
            found[place] = h.detach().float().to("cpu", copy=True)
            if place == last:
                raise StopEarly

        with torch.inference_mode(), seeing(self._model, self._places, keep), suppress(StopEarly):
            self._model.base_model(ids.to(self._model.device), use_cache=False)
        return found

    def _activations(
        self, number: int, placed: PlacedSae, h: Tensor, counted: Tensor, batch: tuple[int, ...]
    ) -> Iterator[Seen]:
        norms = torch.linalg.vector_norm(h, dim=-1)
        if placed.place not in self._sink_norms and counted.any():
            self._sink_norms[placed.place] = _SINK_MULTIPLE * median_norm(h[counted])
        kept = counted & (norms <= self._sink_norms.get(placed.place, torch.inf))
        line, position = kept.nonzero(as_tuple=True)
        example = torch.tensor(batch)[line]
        step = max(1, _NUMBERS_AT_ONCE // placed.sae.config.d_sae)
        # An empty batch has an end too.
        for start in range(0, max(1, len(line)), step):
            part = slice(start, start + step)
            yield Seen(
                number,
                encoded(placed.sae, h[line[part], position[part]]),
                example[part],
                position[part],
                start + step >= len(line),
            )


def encoded(sae: LoadedSae, h: Tensor) -> Tensor:
    """An SAE's activations on streams [tokens, d], shape [tokens, features], on the CPU."""
    if not len(h):
        return torch.zeros(0, sae.config.d_sae)
    with torch.inference_mode():
        found: Tensor = sae.module.encode(h.to(sae.module.W_enc.device))
    return found.float().cpu()


def _batches(examples: Sequence[Example]) -> Iterator[tuple[int, ...]]:
    """Numbers of examples, those of like lengths together."""
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].ids))
    start = 0
    while start < len(order):
        size = max(1, _TOKENS_AT_ONCE // len(examples[order[start]].ids))
        yield tuple(order[start : start + size])
        start += size
