"""One model over the held-out text: its last hidden states, and what its inserted layers did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hubsplice.checkpoint.manifest import INJECTION
from hubsplice.fidelity.divergence import LogitScale
from hubsplice.model import Model, batches, decoder_layers


@dataclass(frozen=True)
class InsertedAt:
    """Where an inserted layer is, and which of its neurons tell on which side of a jump a token is.

    Attributes:
        index: the layer's index in the spliced model.
        first: the index of the layer that its splice begins with, where layers before it prepare
            the stream for it.
        jump_gates: (term, neuron, side) of every jump; see `CompiledLayer`.
        saturation: the neuron's gate pre-activation at the jump.
        gate_module: the module in the layer whose output begins with the gate pre-activations.
    """

    index: int
    jump_gates: tuple[tuple[int, int, int], ...]
    saturation: float
    gate_module: str = "mlp.gate_proj"
    first: int | None = None

    @staticmethod
    def from_constants(
        first: int, index: int, constants: Mapping[str, Any], gate_module: str
    ) -> InsertedAt:
        """Read what the manifest records of a layer."""
        gates = constants.get("jump_gates", [])
        return InsertedAt(
            index,
            tuple((int(term), int(neuron), int(side)) for term, neuron, side in gates),
            float(constants.get("saturation", 0.0)),
            gate_module,
            first,
        )


def inserted_at(
    places: Iterable[int], constants: Iterable[Mapping[str, Any]], gate_module: str
) -> tuple[InsertedAt, ...]:
    """The layers that edit, one per site.

    Args:
        places: the index of every inserted layer in the spliced model.
        constants: what the manifest records of each, with the construction.
        gate_module: see `InsertedAt`.
    """
    found = []
    first = None
    for index, chosen in zip(places, constants, strict=True):
        first = index if first is None else first
        if chosen.get("construction") != INJECTION:
            found.append(InsertedAt.from_constants(first, index, chosen, gate_module))
            first = None
    return tuple(found)


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
    """

    hidden: Tensor
    passes: tuple[LayerPass, ...]


def run_model(
    model: Model,
    ids: Tensor,
    inserted: Sequence[InsertedAt],
    progress: Callable[[int, int], None],
) -> Run:
    """Run a model over token ids [sequences, length] and keep what the metrics need."""
    hidden: list[Tensor] = []
    recorders = [_Recorder(model, layer) for layer in inserted]
    try:
        hidden.extend(
            model.base_model(batch, use_cache=False).last_hidden_state.cpu()
            for batch in batches(model, ids, progress)
        )
    finally:
        for recorder in recorders:
            recorder.remove()
    return Run(torch.cat(hidden), tuple(recorder.result() for recorder in recorders))


def head_weight(model: Model) -> Tensor:
    """The output embeddings, shape [vocabulary, d], on the CPU."""
    weight: Tensor = model.get_output_embeddings().weight.detach().cpu()
    return weight


def logit_scale(model: Model) -> LogitScale:
    """What the model does to the products of hidden states and output embeddings."""
    return LogitScale.of(model.config.get_text_config().to_dict())


def greedy_tokens(model: Model, prompts: Tensor, new_tokens: int) -> Tensor:
    """Greedy continuations of prompts [n, length], shape [n, new_tokens], on the CPU."""
    with torch.inference_mode():
        output: Tensor = model.generate(
            prompts.to(model.device),
            attention_mask=torch.ones_like(prompts, device=model.device),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )
    return output[:, prompts.shape[1] :].cpu()


class _Recorder:
    def __init__(self, model: Model, layer: InsertedAt) -> None:
        layers = decoder_layers(model)
        module = layers[layer.index]
        first = module if layer.first is None else layers[layer.first]
        self._neurons = [neuron for _, neuron, _ in layer.jump_gates]
        self._sides = torch.tensor([side < 0 for _, _, side in layer.jump_gates], dtype=torch.bool)
        self._saturation = layer.saturation
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []
        self._gates: list[Tensor] = []
        gate = module.get_submodule(layer.gate_module)
        self._handles = [
            first.register_forward_pre_hook(self._keep_before, with_kwargs=True),
            module.register_forward_hook(self._keep_after),
            gate.register_forward_hook(self._keep_gates),
        ]

    def _keep_before(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        self._before.append(before.flatten(end_dim=1).cpu())

    def _keep_after(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        after = output[0] if isinstance(output, tuple) else output
        self._after.append(after.flatten(end_dim=1).cpu())

    def _keep_gates(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        above = (output[..., self._neurons] > self._saturation).flatten(end_dim=1).cpu()
        self._gates.append(above ^ self._sides)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def result(self) -> LayerPass:
        return LayerPass(torch.cat(self._before), torch.cat(self._after), torch.cat(self._gates))
