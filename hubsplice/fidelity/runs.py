"""One model over the held-out text: its last hidden states, and what its inserted layers did."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hubsplice.errors import UnsupportedError
from hubsplice.fidelity.divergence import LogitScale
from hubsplice.fidelity.inserted import InsertedAt, watching
from hubsplice.files.space import readable_size
from hubsplice.intervention.intervention import NO_EDIT, Intervention
from hubsplice.intervention.place import Block, Place
from hubsplice.streams.aside import Aside
from hubsplice.streams.in_step import Entered, InStep
from hubsplice.streams.model import (
    Model,
    decoder_layers,
    hooked,
    in_batches,
    removed_afterwards,
    seeing,
)
from hubsplice.streams.on_disk import OnDisk, bytes_on_disk
from hubsplice.streams.room import MEMORY
from hubsplice.streams.turns import in_turns

Result = TypeVar("Result")

_PROMPTS, _PROMPT_TOKENS, NEW_TOKENS = 16, 24, 24
_SEED = 0
MOST_READ = 3 * 10**11
"""Bytes of weights that are read from the disk to continue text: some five minutes from most."""


@dataclass(frozen=True, eq=False)
class LayerPass:
    """What went through one layer, on the CPU, in the model's dtype.

    Attributes:
        before: the stream that came in, shape [tokens, d].
        after: the stream that went out, same shape.
        gates: whether p was above each jump, in the order of `jump_gates`, [tokens, jumps].
    """

    before: Tensor
    after: Tensor
    gates: Tensor


@dataclass(frozen=True, eq=False)
class Run:
    """One pass over the text.

    Attributes:
        hidden: what the output embeddings read, shape [sequences, length, d], on the CPU.
        passes: by inserted layer, in order; empty for a base model.
        streams: the stream at each place that was asked for, before hooks edit it there, shape
            [tokens, d], on the CPU.
    """

    hidden: Tensor
    passes: tuple[LayerPass, ...]
    streams: Mapping[Place, Tensor]


@dataclass(frozen=True, eq=False)
class Variant:
    """What is on a model in one of several passes that go in step.

    Attributes:
        edit: the hook.
        places: where the stream is kept.
        inserted: the inserted layers that are watched.
        sequences: how many sequences pass it, the first ones; None for all of them.
    """

    edit: Intervention = NO_EDIT
    places: Sequence[Place] = ()
    inserted: Sequence[InsertedAt] = ()
    sequences: int | None = None

    @property
    def is_bare(self) -> bool:
        """Whether it is the model as it is over all text, and nothing is seen on the way."""
        seen = self.edit.sites or self.places or self.inserted
        return not seen and self.sequences is None


def first_difference(places: Iterable[Place], in_biases: Container[Place] = ()) -> Place | None:
    """The first place at which base, hook and splice may differ; None where nothing is edited.

    Args:
        places: of the edits.
        in_biases: those whose edit is in a bias of the layer before it.
    """

    def differs(place: Place) -> Place:
        # From where that layer is entered.
        return Place(place.layer, Block.ATTENTION) if place in in_biases else place

    return min(map(differs, places), default=None)


def run_model(
    model: Model,
    ids: Tensor,
    inserted: Sequence[InsertedAt],
    progress: Callable[[int, int], None],
    places: Sequence[Place] = (),
) -> Run:
    """Run a model over token ids [sequences, length] and keep what the metrics need."""
    variant = Variant(places=places, inserted=inserted)
    return run_variants(model, ids, [variant], progress)[1][0]


def run_variants(
    model: Model,
    ids: Tensor,
    variants: Sequence[Variant],
    progress: Callable[[int, int], None],
    *,
    differ: Place | None = None,
    entered: Entered | None = None,
) -> tuple[Entered, tuple[Run, ...]]:
    """Run variants of a model over token ids, in step.

    Args:
        model: the model. Hooks that are on it already act in all variants, and need `differ` to
            be None.
        ids: shape [sequences, length].
        variants: what is on it for each.
        progress: told how many sequences are done, and how many there are.
        differ: the first place at which variants differ, or see anything. What is before it is
            passed once. None where they may differ from the beginning.
        entered: the streams that all variants begin with, where they are known; `differ` is of no
            use then.

    Returns:
        The streams that they began with, and what was kept of each variant.
    """
    step = InStep(model, in_batches(model, ids))
    bare = step.known(step.layers) if any(v.is_bare for v in variants) else None
    passing = [v for v in variants if bare is None or not v.is_bare]
    common = 0 if differ is None else differ.layers_before(step.layers)
    before, first = (common, common) if entered is None else (0, entered.layer)
    behind = (step.layers - first) * len(passing)

    def told(start: int, of: int) -> Callable[[float], None]:
        every = max(1, before + behind)
        return lambda part: progress(int(len(ids) * (start + part * of) / every), len(ids))

    progress(0, len(ids))
    if entered is None:
        entered = step.reach(common, told(0, common))
    recorders = {id(v): _Recorder(model, v, step.aside) for v in variants}
    hooks = [recorders[id(v)].on for v in passing]
    passed = step.through(
        entered, step.layers, hooks, told(before, behind), [v.sequences for v in passing]
    )
    ends = {id(v): end for v, end in zip(passing, passed, strict=True)}
    for variant in variants:
        if variant.is_bare and bare is None:
            step.keep(ends[id(variant)])
    runs = tuple(
        recorders[id(v)].result(step.finish(ends.get(id(v), bare or entered))) for v in variants
    )
    progress(len(ids), len(ids))
    return entered, runs


def head_weight(model: Model) -> Tensor:
    """The output embeddings, shape [vocabulary, d], on the CPU.

    Those that stay on the disk are in the precision of their file.
    """
    head = model.get_output_embeddings()
    on_disk = OnDisk.of(head)
    if on_disk is not None:
        return on_disk.stored(on_disk.only)
    weight: Tensor = head.weight.detach().cpu()
    return weight


def logit_scale(model: Model) -> LogitScale:
    """What the model does to the products of hidden states and output embeddings."""
    return LogitScale.of(model.config.get_text_config().to_dict())


def beginnings(ids: Tensor) -> Tensor:
    """The prompts that are continued: beginnings of the first of some sequences [n, length]."""
    return ids[:_PROMPTS, :_PROMPT_TOKENS]


def require_readable(model: Model, new_tokens: int) -> None:
    """Refuse to generate what would take absurdly long, since it is read from the disk.

    Args:
        model: the model.
        new_tokens: how many times it is read.

    Raises:
        UnsupportedError: with the size.
    """
    read = bytes_on_disk(model)
    if read * new_tokens > MOST_READ:
        raise UnsupportedError(
            f"each of {new_tokens} new tokens would read {readable_size(read)} of the model from "
            f"the disk; {MEMORY}=whole holds it in memory"
        )


def greedy_tokens(
    model: Model, prompts: Tensor, new_tokens: int = NEW_TOKENS, is_text: Tensor | None = None
) -> Tensor:
    """Greedy continuations of prompts, shape [n, new_tokens], on the CPU.

    Args:
        model: the model.
        prompts: token ids, shape [n, length].
        new_tokens: how many each is continued by.
        is_text: which of the ids are a prompt's, and no padding in front of it; all by default.
    """
    return _continued(model, prompts, new_tokens, is_text, do_sample=False)


def in_step(model: Model, runs: Sequence[Callable[[], Result]]) -> list[Result]:
    """What several runs give that generate with one model, which is read once for all of them.

    Each has what it puts on the model for itself; see `in_turns`.
    """
    return in_turns(runs, together=bytes_on_disk(model) > 0)


def with_hook(model: Model, edit: Intervention, run: Callable[[], Result]) -> Callable[[], Result]:
    """A run during which the hook is on the model."""

    def with_it() -> Result:
        with hooked(model, edit):
            return run()

    return with_it


def sampled_tokens(model: Model, prompts: Tensor) -> Tensor:
    """Continuations that are drawn with random numbers which are always the same, likewise."""
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        return _continued(model, prompts, NEW_TOKENS, None, do_sample=True, top_k=0)


def _continued(
    model: Model, prompts: Tensor, new_tokens: int, is_text: Tensor | None, **how: Any
) -> Tensor:
    """Exactly `new_tokens` tokens after each prompt, past any end of a sequence."""
    from transformers import GenerationConfig

    require_readable(model, new_tokens)
    mask = torch.ones_like(prompts) if is_text is None else is_text.long()
    with torch.inference_mode():
        output: Tensor = model.generate(
            prompts.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=GenerationConfig(max_new_tokens=new_tokens, **how),
        )
    return output[:, prompts.shape[1] :].cpu()


class _Recorder:
    """What one variant has on the model, and what is seen there."""

    def __init__(self, model: Model, variant: Variant, aside: Aside) -> None:
        self._model, self._variant, self._aside = model, variant, aside
        self._streams: dict[Place, list[Tensor]] = {place: [] for place in variant.places}
        self._layers = [_LayerRecorder(model, layer, aside) for layer in variant.inserted]

    @contextmanager
    def on(self) -> Iterator[None]:
        """Have everything on the model while the context lasts."""
        with ExitStack() as stack:
            variant = self._variant
            stack.enter_context(hooked(self._model, variant.edit, entering=True))
            stack.enter_context(seeing(self._model, variant.places, self._keep, entering=True))
            for layer in self._layers:
                stack.enter_context(layer.on())
            yield

    def _keep(self, place: Place, h: Tensor) -> None:
        seen = h.detach().flatten(end_dim=1)
        self._streams[place].append(self._aside.put(seen, copy=True))

    def result(self, hidden: Tensor) -> Run:
        return Run(
            hidden,
            tuple(layer.result() for layer in self._layers),
            {place: self._aside.joined(parts) for place, parts in self._streams.items()},
        )


class _LayerRecorder:
    def __init__(self, model: Model, layer: InsertedAt, aside: Aside) -> None:
        self._model, self._layer, self._aside = model, layer, aside
        self._neurons = [neuron for _, neuron, _ in layer.jump_gates]
        self._sides = torch.tensor([side < 0 for _, _, side in layer.jump_gates], dtype=torch.bool)
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []
        self._gates: list[Tensor] = []
        # The splice's first layer and its last may be passed at different times.
        self._entered: deque[Tensor] = deque()

    @contextmanager
    def on(self) -> Iterator[None]:
        module = decoder_layers(self._model)[self._layer.index]
        gate = module.get_submodule(self._layer.gate_module)
        with (
            watching(self._model, self._layer, self._keep, self._entered),
            removed_afterwards([gate.register_forward_hook(self._keep_gates)]),
        ):
            yield

    def _keep(self, before: Tensor, after: Tensor) -> None:
        self._before.append(self._aside.put(before.flatten(end_dim=1)))
        self._after.append(self._aside.put(after.flatten(end_dim=1)))

    def _keep_gates(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        above = output[..., self._neurons] > self._layer.saturation
        self._gates.append(above.flatten(end_dim=1).cpu() ^ self._sides)

    def result(self) -> LayerPass:
        before, after = (self._aside.joined(parts) for parts in (self._before, self._after))
        return LayerPass(before, after, torch.cat(self._gates))
