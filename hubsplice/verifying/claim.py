"""What a checkpoint's manifest claims, worked out against the base: the tensors it must hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from hubsplice.adapters.carrier import slot_tensors, slots_of
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.layer_map import LayerMap, inserted_indices, inserted_places
from hubsplice.checkpoint.layout import DTYPE_NAMES
from hubsplice.checkpoint.manifest import Manifest
from hubsplice.checkpoint.padded import Padded
from hubsplice.compiling.linker import Linker
from hubsplice.errors import HubspliceError
from hubsplice.families.architecture import Architecture
from hubsplice.families.served import built_architecture
from hubsplice.fidelity.inserted import InsertedAt, inserted_layers
from hubsplice.files.safetensors_header import TensorEntry
from hubsplice.intervention.place import Place


@dataclass(frozen=True)
class ExpectedTensor:
    """A tensor that the spliced checkpoint must hold.

    Attributes:
        dtype: as safetensors spells it.
        shape: its shape.
        base_name: the base's tensor whose bytes it has, all or some rows; None for an added one.
        base_part: where they lie in the base's file.
        layer: the index of the inserted layer that it belongs to; None for others.
        value: what an added tensor holds throughout; None for what the edit fills.
    """

    dtype: str
    shape: tuple[int, ...]
    base_name: str | None = None
    base_part: TensorEntry | None = None
    layer: int | None = None
    value: float | None = None


@dataclass(frozen=True, eq=False)
class Claim:
    """A manifest and the base that it names."""

    manifest: Manifest
    base: BaseCheckpoint
    architecture: Architecture

    @staticmethod
    def of(manifest: Manifest, base: BaseCheckpoint) -> Claim:
        """The claim that `manifest` makes about `base`.

        Raises:
            UnsupportedError: no checkpoint of the base's family can be spliced.
        """
        architecture = built_architecture(manifest, base.config)
        architecture.validate()
        return Claim(manifest, base, architecture)

    @property
    def dtype(self) -> torch.dtype | None:
        """The precision of the inserted layers; None where the manifest names none of torch's."""
        for dtype in DTYPE_NAMES:
            if str(dtype) == f"torch.{self.manifest.dtype}":
                return dtype
        return None

    @property
    def layers(self) -> LayerMap:
        """Where the result's layers come from."""
        return self.manifest.layer_map

    @cached_property
    def linker(self) -> Linker:
        """What the result is made of."""
        return Linker(self.architecture, self.layers)

    def layer_map_problems(self) -> list[str]:
        """What is wrong with the manifest's layer map; the rest can't be worked out then."""
        declared, num_layers = self.manifest.layers, self.architecture.num_layers
        held = len(self.layers) - len(declared)
        places = inserted_places(self.layers)
        problems = []
        if held != num_layers:
            problems.append(f"layer_map: found {held} base layers, expected {num_layers}")
        else:
            problems += self._place_problems(places)
        problems += [
            f"layers[{i}].site: found {layer.place}, expected {place}, as in layer_map"
            for i, (layer, place) in enumerate(zip(declared, places, strict=True))
            if layer.place != place
        ]
        problems += self._bias_problems() if not problems else []
        if self.dtype is None:
            problems.append(f"dtype: found {self.manifest.dtype!r}, expected a torch dtype")
        try:
            Linker(self.architecture, self.architecture.layer_map([])).bias_tensors(
                self.base.tensors
            )
        except HubspliceError as error:
            problems.append(f"base: {error}")
        return problems

    def _place_problems(self, places: Sequence[Place]) -> list[str]:
        try:
            expected = self.architecture.layer_map(places)
        except HubspliceError as error:
            return [f"layer_map: {error}"]
        if expected != self.layers:
            return ["layer_map: inserted layers at one place are not in order"]
        return []

    def _bias_problems(self) -> list[str]:
        """Where the manifest puts edits in biases that no splice of the family has."""
        biases = self.manifest.biases
        if biases and self.architecture.output_bias is None:
            return ["biases: expected none: the family has none that could hold an edit"]
        places = [bias.place for bias in biases]
        taken = {*inserted_places(self.layers)}
        problems = [
            f"biases: layer {place}: more than one edit is there"
            for place in sorted({p for p in places if places.count(p) > 1 or p in taken})
        ]
        for bias in biases:
            name = self.linker.output_bias_name(self.base.tensors, bias.site)
            if bias.site >= self.architecture.num_layers or bias.tensor != name:
                problems.append(
                    f"biases: layer {bias.site}: found {bias.tensor!r}, expected {name!r}"
                )
        return problems

    @cached_property
    def inserted_indices(self) -> tuple[int, ...]:
        """The index in the result of the MLP of each inserted layer."""
        return inserted_indices(self.layers)

    @property
    def inserted(self) -> tuple[InsertedAt, ...]:
        """The layers that edit, one per site."""
        return inserted_layers(self.manifest, self.architecture)

    @cached_property
    def expected(self) -> Mapping[str, ExpectedTensor]:
        """Every tensor of the result, by name: the base's, added biases, inserted layers'."""
        linker = self.linker
        found = {
            linker.rename(part.name): ExpectedTensor(
                part.dtype, part.shape, base_name=name, base_part=part
            )
            for name, entry in self.base.tensors.items()
            for part in self.architecture.split(entry)
        }
        for name, zeros in linker.bias_tensors(self.base.tensors).items():
            found[name] = ExpectedTensor(DTYPE_NAMES[zeros.dtype], zeros.shape, value=0.0)
        dtype = self.dtype
        assert dtype is not None
        for bias in self.manifest.biases:
            found[bias.tensor] = ExpectedTensor(DTYPE_NAMES[dtype], found[bias.tensor].shape)
        for splice, index in enumerate(self.inserted_indices):
            for name, tensor in linker.inserted_layout(splice).items():
                found[name] = ExpectedTensor(
                    DTYPE_NAMES[dtype], tensor.shape, layer=index, value=tensor.value
                )
        if self.manifest.slots is not None:
            found |= dict(self._of_carrier(found))
        return found

    @cached_property
    def slots(self) -> Mapping[str, Padded]:
        """What a carrier's empty layers hold beside zeros, by tensor; nothing of others.

        Raises:
            CheckpointError: there are more slots than neurons, or some of another family's kinds.
        """
        dtype = self.dtype
        if self.manifest.slots is None or dtype is None:
            return {}
        made = slots_of(self.manifest, self.architecture)
        return {
            name: tensor
            for splice in range(len(self.inserted_indices))
            for name, tensor in slot_tensors(self.linker, splice, made, dtype).items()
        }

    def _of_carrier(
        self, expected: Mapping[str, ExpectedTensor]
    ) -> Iterator[tuple[str, ExpectedTensor]]:
        """The tensors of empty layers: slots, and zeros where an edit would be."""
        for name, want in expected.items():
            if name in self.slots:
                yield name, replace(want, value=None)
            elif want.layer is not None and want.value is None:
                yield name, replace(want, value=0.0)
