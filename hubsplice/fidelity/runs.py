"""One model over the held-out text: its last hidden states, and what its inserted layers did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hubsplice.fidelity.divergence import LogitScale
from hubsplice.fidelity.inserted import InsertedAt, watching
from hubsplice.intervention.place import Place
from hubsplice.streams.model import Model, batches, decoder_layers, seeing

_PROMPTS, _PROMPT_TOKENS, NEW_TOKENS = 16, 24, 24
_SEED = 0


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


def run_model(
    model: Model,
    ids: Tensor,
    inserted: Sequence[InsertedAt],
    progress: Callable[[int, int], None],
    places: Sequence[Place] = (),
) -> Run:
    """Run a model over token ids [sequences, length] and keep what the metrics need."""
    hidden: list[Tensor] = []
    seen: dict[Place, list[Tensor]] = {place: [] for place in places}
    recorders = [_Recorder(model, layer) for layer in inserted]

    def keep(place: Place, h: Tensor) -> None:
        seen[place].append(h.detach().flatten(end_dim=1).to("cpu", copy=True))

    try:
        with seeing(model, places, keep):
            hidden.extend(
                model.base_model(batch, use_cache=False).last_hidden_state.cpu()
                for batch in batches(model, ids, progress)
            )
    finally:
        for recorder in recorders:
            recorder.remove()
    return Run(
        torch.cat(hidden),
        tuple(recorder.result() for recorder in recorders),
        {place: torch.cat(parts) for place, parts in seen.items()},
    )


def head_weight(model: Model) -> Tensor:
    """The output embeddings, shape [vocabulary, d], on the CPU."""
    weight: Tensor = model.get_output_embeddings().weight.detach().cpu()
    return weight


def logit_scale(model: Model) -> LogitScale:
    """What the model does to the products of hidden states and output embeddings."""
    return LogitScale.of(model.config.get_text_config().to_dict())


def beginnings(ids: Tensor) -> Tensor:
    """The prompts that are continued: beginnings of the first of some sequences [n, length]."""
    return ids[:_PROMPTS, :_PROMPT_TOKENS]


def greedy_tokens(model: Model, prompts: Tensor, new_tokens: int = NEW_TOKENS) -> Tensor:
    """Greedy continuations of prompts [n, length], shape [n, new_tokens], on the CPU."""
    return _continued(model, prompts, new_tokens, do_sample=False)


def sampled_tokens(model: Model, prompts: Tensor) -> Tensor:
    """Continuations that are drawn with random numbers which are always the same, likewise."""
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        return _continued(model, prompts, NEW_TOKENS, do_sample=True, top_k=0)


def _continued(model: Model, prompts: Tensor, new_tokens: int, **how: Any) -> Tensor:
    """Exactly `new_tokens` tokens after each prompt, past any end of a sequence."""
    from transformers import GenerationConfig

    with torch.inference_mode():
        output: Tensor = model.generate(
            prompts.to(model.device),
            attention_mask=torch.ones_like(prompts, device=model.device),
            generation_config=GenerationConfig(max_new_tokens=new_tokens, **how),
        )
    return output[:, prompts.shape[1] :].cpu()


class _Recorder:
    def __init__(self, model: Model, layer: InsertedAt) -> None:
        module = decoder_layers(model)[layer.index]
        self._neurons = [neuron for _, neuron, _ in layer.jump_gates]
        self._sides = torch.tensor([side < 0 for _, _, side in layer.jump_gates], dtype=torch.bool)
        self._saturation = layer.saturation
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []
        self._gates: list[Tensor] = []
        gate = module.get_submodule(layer.gate_module)
        self._stack = ExitStack()
        self._stack.enter_context(watching(model, layer, self._keep))
        self._stack.callback(gate.register_forward_hook(self._keep_gates).remove)

    def _keep(self, before: Tensor, after: Tensor) -> None:
        self._before.append(before.flatten(end_dim=1).cpu())
        self._after.append(after.flatten(end_dim=1).cpu())

    def _keep_gates(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        above = (output[..., self._neurons] > self._saturation).flatten(end_dim=1).cpu()
        self._gates.append(above ^ self._sides)

    def remove(self) -> None:
        self._stack.close()

    def result(self) -> LayerPass:
        return LayerPass(torch.cat(self._before), torch.cat(self._after), torch.cat(self._gates))
