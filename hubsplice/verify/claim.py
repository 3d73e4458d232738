"""What a checkpoint's manifest claims, worked out against the base: the tensors it must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from hubsplice.architectures.base import Architecture
from hubsplice.architectures.registry import architecture_of
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.layout import DTYPE_NAMES
from hubsplice.checkpoint.manifest import FromBase, Manifest
from hubsplice.errors import HubspliceError


@dataclass(frozen=True)
class ExpectedTensor:
    """A tensor that the spliced checkpoint must hold.

    Attributes:
        dtype: as safetensors spells it.
        shape: its shape.
        base_name: the base's tensor whose bytes it has; None for an added one.
        layer: the index of the inserted layer that it belongs to; None for others.
        value: what an added tensor holds throughout; None for what the edit fills.
    """

    dtype: str
    shape: tuple[int, ...]
    base_name: str | None = None
    layer: int | None = None
    value: float | None = None


@dataclass(frozen=True, eq=False)
class Claim:
    """A manifest and the base that it names."""

    manifest: Manifest
    base: BaseCheckpoint
    architecture: Architecture[Any]

    @staticmethod
    def of(manifest: Manifest, base: BaseCheckpoint) -> Claim:
        """The claim that `manifest` makes about `base`.

        Raises:
            UnsupportedError: no checkpoint of the base's family can be spliced.
        """
        architecture = architecture_of(base.config)
        architecture.validate()
        return Claim(manifest, base, architecture)

    @property
    def dtype(self) -> torch.dtype | None:
        """The precision of the inserted layers; None where the manifest names none of torch's."""
        for dtype in DTYPE_NAMES:
            if str(dtype) == f"torch.{self.manifest.dtype}":
                return dtype
        return None

    @cached_property
    def after_layers(self) -> list[int]:
        """The base layer that each inserted layer follows; -1 for one before all of them."""
        following: dict[int, int] = {}
        last = -1
        for layer in self.manifest.layer_map:
            if isinstance(layer, FromBase):
                last = layer.base
            else:
                following[layer.splice] = last
        return [following[i] for i in sorted(following)]

    def layer_map_problems(self) -> list[str]:
        """What is wrong with the manifest's layer map; the rest can't be worked out then."""
        declared, layers = self.manifest.layer_map, self.architecture.num_layers
        held = sum(isinstance(layer, FromBase) for layer in declared)
        problems = []
        if held != layers:
            problems.append(f"layer_map: found {held} base layers, expected {layers}")
        elif -1 in self.after_layers:
            problems.append("layer_map: an inserted layer comes before the base's first")
        elif self.architecture.layer_map(self.after_layers) != declared:
            problems.append("layer_map: inserted layers at one place are not in order")
        problems += [
            f"layers[{i}].site: found {layer.site}, expected {after}, as in layer_map"
            for i, (layer, after) in enumerate(
                zip(self.manifest.layers, self.after_layers, strict=True)
            )
            if layer.site != after
        ]
        problems += self._bias_problems() if not problems else []
        if self.dtype is None:
            problems.append(f"dtype: found {self.manifest.dtype!r}, expected a torch dtype")
        try:
            self.architecture.bias_tensors(self.base.tensors, [])
        except HubspliceError as error:
            problems.append(f"base: {error}")
        return problems

    def _bias_problems(self) -> list[str]:
        """Where the manifest puts edits in biases that no splice of the family has."""
        if self.manifest.biases and self.architecture.output_bias is None:
            return ["biases: expected none: the family has none that could hold an edit"]
        sites = [bias.site for bias in self.manifest.biases]
        taken = {*self.after_layers}
        problems = [
            f"biases: layer {site}: more than one edit is there"
            for site in sorted({s for s in sites if sites.count(s) > 1 or s in taken})
        ]
        for bias in self.manifest.biases:
            name = self.architecture.output_bias_name(
                self.base.tensors, bias.site, self.after_layers
            )
            if bias.site >= self.architecture.num_layers or bias.tensor != name:
                problems.append(
                    f"biases: layer {bias.site}: found {bias.tensor!r}, expected {name!r}"
                )
        return problems

    @cached_property
    def inserted_indices(self) -> tuple[int, ...]:
        """The index in the result of each inserted layer."""
        return self.architecture.inserted_indices(self.after_layers)

    @cached_property
    def expected(self) -> Mapping[str, ExpectedTensor]:
        """Every tensor of the result, by name: the base's, added biases, inserted layers'."""
        architecture, after = self.architecture, self.after_layers
        found = {
            architecture.rename(name, after): ExpectedTensor(
                entry.dtype, entry.shape, base_name=name
            )
            for name, entry in self.base.tensors.items()
        }
        for name, zeros in architecture.bias_tensors(self.base.tensors, after).items():
            found[name] = ExpectedTensor(DTYPE_NAMES[zeros.dtype], zeros.shape, value=0.0)
        dtype = self.dtype
        assert dtype is not None
        for bias in self.manifest.biases:
            found[bias.tensor] = ExpectedTensor(DTYPE_NAMES[dtype], found[bias.tensor].shape)
        for index in self.inserted_indices:
            # Only shapes are wanted, and an empty layer at its full size would take room.
            with torch.device("meta"):
                layout = architecture.inserted_layout(index)
            for name, tensor in layout.items():
                found[name] = ExpectedTensor(
                    DTYPE_NAMES[dtype], tensor.shape, layer=index, value=tensor.value
                )
        return found
