"""The inserted layers of a spliced model: where they are, and what they do to the stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from hubsplice.checkpoint.layer_map import FromBase, Joined, LayerMap, inserted_indices
from hubsplice.checkpoint.manifest import INJECTION, MARKING, SPLIT, Manifest
from hubsplice.families.architecture import Architecture
from hubsplice.intervention.place import Place
from hubsplice.streams.model import Model, decoder_layers, removed_afterwards


@dataclass(frozen=True)
class InsertedAt:
    """Where an inserted layer is, and which of its neurons tell on which side of a jump a token is.

    Attributes:
        index: the index in the spliced model of the layer that has its MLP.
        jump_gates: (term, neuron, side) of every jump; see `CompiledLayer`.
        saturation: the neuron's gate pre-activation at the jump.
        gate_module: the module in the layer whose output begins with the gate pre-activations.
        first: the index of the layer that its splice begins with, where layers before it prepare
            the stream for it.
        carrier: where the MLP stands behind the attention of the base, the linear map of that
            attention whose bias adds the edit's constant.
    """

    index: int
    jump_gates: tuple[tuple[int, int, int], ...] = ()
    saturation: float = 0.0
    gate_module: str = "mlp.gate_proj"
    first: int | None = None
    carrier: str | None = None


def inserted_at(
    layers: LayerMap,
    constants: Iterable[Mapping[str, Any]],
    *,
    gate_module: str,
    carrier: str | None,
) -> tuple[InsertedAt, ...]:
    """The layers that edit, one per site.

    Args:
        layers: where the spliced model's layers come from.
        constants: what the manifest records of each inserted one, with the construction.
        gate_module: see `InsertedAt`.
        carrier: the same.
    """
    found = []
    first = None
    for index, chosen in zip(inserted_indices(layers), constants, strict=True):
        if chosen.get("construction") == SPLIT:
            continue
        first = index if first is None else first
        if chosen.get("construction") in (INJECTION, MARKING):
            continue
        gates = chosen.get("jump_gates", [])
        found.append(
            InsertedAt(
                index,
                tuple((int(term), int(neuron), int(side)) for term, neuron, side in gates),
                float(chosen.get("saturation", 0.0)),
                gate_module,
                first,
                carrier if isinstance(layers[index], Joined) else None,
            )
        )
        first = None
    return tuple(found)


def inserted_layers(manifest: Manifest, architecture: Architecture) -> tuple[InsertedAt, ...]:
    """The layers that edit in a checkpoint of a base of this family, one per site."""
    return inserted_at(
        manifest.layer_map,
        [layer.constants | {"construction": layer.construction} for layer in manifest.layers],
        gate_module=architecture.family.becomes.block.gate_module,
        carrier=architecture.carrier,
    )


def bias_indices(layers: LayerMap, places: Iterable[Place]) -> dict[Place, int]:
    """The index in the spliced model of each layer whose MLP carries an edit in its bias."""
    return {
        place: next(
            i
            for i, layer in enumerate(layers)
            if isinstance(layer.mlp, FromBase) and layer.mlp.base == place.layer
        )
        for place in places
    }


@contextmanager
def watching(
    model: Model,
    inserted: InsertedAt,
    see: Callable[[Tensor, Tensor], None],
    entered: deque[Tensor] | None = None,
) -> Iterator[None]:
    """Show the stream before an inserted layer's edit and after it, while the context lasts.

    Args:
        model: the spliced model.
        inserted: the layer.
        see: gets the stream before and after, both of shape [..., d], at every pass.
        entered: what is on its way through the splice, where that takes several contexts.
    """
    layers = decoder_layers(model)
    module = layers[inserted.index]
    # Several batches may enter before the first of them leaves.
    entered = deque() if entered is None else entered

    def enter(_module: nn.Module, args: Any, kwargs: Any) -> None:
        entered.append(args[0] if args else kwargs["hidden_states"])

    def attend(projection: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # What the base's attention adds by itself, with the rounding that it has without a bias.
        added = functional.linear(inputs[0], projection.get_parameter("weight"))
        entered[0] = entered[0] + added * getattr(module, "residual_multiplier", 1.0)

    def leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
        see(entered.popleft(), output[0] if isinstance(output, tuple) else output)

    first = module if inserted.first is None else layers[inserted.first]
    handles = [first.register_forward_pre_hook(enter, with_kwargs=True)]
    if inserted.carrier is not None:
        carrier = module.get_submodule(inserted.carrier)
        handles.append(carrier.register_forward_pre_hook(attend))
    handles.append(module.register_forward_hook(leave))
    with removed_afterwards(handles):
        yield
