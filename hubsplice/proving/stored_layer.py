"""An inserted layer as a checkpoint's files hold it: the tensors that an edit fills, by role."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hubsplice.checkpoint.layer_map import inserted_indices, inserted_places
from hubsplice.checkpoint.manifest import MARKING, Manifest
from hubsplice.compiling.construct import empty_layer
from hubsplice.compiling.linker import Linker
from hubsplice.constructions.bias_free_layer import BiasFreeLayer
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.marking import Mark, staged
from hubsplice.constructions.two_layers import TwoLayers
from hubsplice.errors import CheckpointError, UnsupportedError
from hubsplice.families.architecture import Architecture
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site

_COLUMNS = frozenset({"down_weight", "out_weight"})
_NOT_OF_NEURONS = frozenset(
    {"attention_bias", "down_bias", "out_bias", "attention_norm", "output_norm"}
)

ReadTensor = Callable[[str], Tensor]
"""Gives a tensor of the checkpoint by its name."""


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """The layers of one splice as they are stored: one that edits, and what prepares it.

    Attributes:
        place: where the stream is edited.
        index: the index in the result of the MLP that edits.
        layer: what the files hold, every neuron of it, used or not.
        names: the tensor that each role of the layer lies in.
        silent: what must be zero of the splice, by the name of the tensor that it is in.
        constants: what the manifest says of how the layer was made.
        eps: the epsilon of the norm that its MLP reads through.
        marking: the layer before it, where that marks tokens for edits under conditions.
    """

    place: Place
    index: int
    layer: CompiledLayer
    names: Mapping[str, str]
    silent: Mapping[str, Tensor]
    constants: Mapping[str, Any]
    eps: float
    marking: StoredLayer | None = None

    @property
    def whole(self) -> CompiledLayer:
        """What the layers of the splice do together."""
        if self.marking is None:
            return self.layer
        return TwoLayers(self.marking.layer, self.layer)

    def staged(self, site: Site) -> tuple[Site, Site]:
        """What the layer that marks and the one that edits are to do, by the recorded marks.

        Raises:
            CheckpointError: the marks are none, or not those of the site's edits.
        """
        assert self.marking is not None
        try:
            return staged(site, Mark.of_records(self.marking.constants.get("marks")))
        except (UnsupportedError, ValueError) as error:
            raise CheckpointError(f"splice.json: constants.marks: {error}") from None

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the tensors are stored in."""
        return next(iter(self.layer.tensors().values())).dtype


def stored_layers(
    architecture: Architecture, manifest: Manifest, dtype: torch.dtype, read: ReadTensor
) -> Iterator[StoredLayer]:
    """The layers of every splice, read from the files.

    Args:
        architecture: the base.
        manifest: the checkpoint's; its layer map must hold.
        dtype: of the inserted layers.
        read: reads a tensor.
    """
    layers = manifest.layer_map
    linker = Linker(architecture, layers)
    indices, places = inserted_indices(layers), inserted_places(layers)
    empty = empty_layer(architecture, dtype)
    carrier, silent = None, dict[str, Tensor]()
    marking: StoredLayer | None = None
    for splice, record in enumerate(manifest.layers):
        names = linker.filled_names(splice)
        # What the manifest calls a layer proves nothing: the last one at a place edits. One that is
        # said to mark is held to its marks, and to the edits' having conditions.
        more_there = places[splice] in places[splice + 1 :]
        marks = record.construction == MARKING and more_there and marking is None
        if more_there and not marks:
            if not architecture.reads_attention:
                carrier = names.pop("out_bias")
            silent |= {n: read(n) - _neutral(empty, role) for role, n in names.items()}
            continue
        if carrier is not None:
            names["attention_bias"] = carrier
        stored = {role: _oriented(read(name), name, linker) for role, name in names.items()}
        layer, more = _filled(empty, stored, names)
        found = StoredLayer(
            places[splice],
            indices[splice],
            layer,
            names,
            silent | more,
            record.constants,
            architecture.norm_eps,
            marking,
        )
        carrier, silent = None, {}
        if marks:
            marking = found
            continue
        yield found
        marking = None


def last_in_use(layer: CompiledLayer) -> int:
    """One more than the last neuron that is not zero throughout."""
    used = neurons_in_use(layer).nonzero()
    return int(used[-1, 0]) + 1 if len(used) else 0


def neurons_in_use(layer: CompiledLayer) -> Tensor:
    """Which neurons are not zero throughout, shape [neurons]."""
    rows = [
        tensor.T if role in _COLUMNS else tensor
        for role, tensor in layer.tensors().items()
        if role not in _NOT_OF_NEURONS
    ]
    return torch.stack([row.reshape(len(row), -1).ne(0).any(dim=1) for row in rows]).any(dim=0)


def _neutral(empty: CompiledLayer, role: str) -> Tensor | float:
    """What a layer without edits holds in a role's tensor, of one dimension or throughout."""
    value = empty.written()[role]
    return value if value.dim() == 1 and len(value) > 1 else 0.0


def _oriented(tensor: Tensor, name: str, linker: Linker) -> Tensor:
    """A tensor as constructions have it: [outputs, inputs]."""
    return tensor.T.contiguous() if linker.is_transposed(name) else tensor


def _filled(
    empty: CompiledLayer, stored: Mapping[str, Tensor], names: Mapping[str, str]
) -> tuple[CompiledLayer, dict[str, Tensor]]:
    """The layer with its tensors, and what is stored beside them and must be zero."""
    if not isinstance(empty, BiasFreeLayer):
        filled: dict[str, Any] = {role: stored[role] for role in stored}
        return replace(empty, **filled), {}
    value, output = stored["value_bias"], stored["value_output"]
    rest = output.clone()
    rest[:, 0] = 0
    layer = replace(
        empty,
        # Attention weights add up to one, and so pass a bias of the values on unchanged.
        attention_bias=output[:, 0] * value[0],
        gate_weight=stored["gate_weight"],
        up_weight=stored["up_weight"],
        down_weight=stored["down_weight"],
    )
    return layer, {names["value_bias"]: value[1:], names["value_output"]: rest}
