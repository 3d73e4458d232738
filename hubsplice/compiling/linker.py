"""What the result is made of: the names of tensors, config.json, and every tensor that is new.

The linker moves and declares; it computes nothing, and reads no weight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hubsplice.checkpoint.layer_map import FromBase, LayerMap, inserted_indices
from hubsplice.checkpoint.layout import DTYPE_NAMES, NewTensor, Zeros
from hubsplice.checkpoint.manifest import ConfigChange
from hubsplice.checkpoint.padded import Padded
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.errors import CheckpointError, UnsupportedError
from hubsplice.families.architecture import Architecture
from hubsplice.families.family import ModelClass
from hubsplice.families.layer_fields import LayerCount
from hubsplice.families.tensors import InsertedTensor
from hubsplice.files.safetensors_header import TensorEntry
from hubsplice.intervention.place import Block

# What says how the model was stored elsewhere, or asks for code.
_NEVER_WRITTEN = frozenset({"_name_or_path", "auto_map"})
_DTYPE_KEYS = ("dtype", "torch_dtype")


@dataclass(frozen=True, eq=False)
class Linker:
    """A splice of a base.

    Attributes:
        architecture: the base.
        layers: where the result's layers come from, as `Architecture.layer_map` gives it.
    """

    architecture: Architecture
    layers: LayerMap

    @property
    def _result(self) -> ModelClass:
        return self.architecture.family.becomes

    def rename(self, name: str) -> str:
        """The name in the result of the base's tensor `name`: only a layer's index moves."""
        prefixes = "|".join(map(re.escape, self._result.prefixes))
        match = re.match(rf"(?P<prefix>{prefixes})(?P<index>\d+)\.(?P<part>.+)", name)
        if match is None:
            return name
        origin = FromBase(base=int(match["index"]))
        block = self.architecture.block_of(match["part"])
        origins = [x.attention if block is Block.ATTENTION else x.mlp for x in self.layers]
        # Layers beyond those that config.json counts stay behind them.
        moved = (
            origins.index(origin)
            if origin in origins
            else origin.base + len(self.layers) - self.architecture.num_layers
        )
        return f"{match['prefix']}{moved}.{match['part']}"

    def original_name(self, name: str) -> str | None:
        """The base's name of the result's tensor `name`; None for one of an inserted layer.

        The other way of `rename`. Tensors that a splice adds to the base's own layers have names
        there too.
        """
        prefixes = "|".join(map(re.escape, self._result.prefixes))
        match = re.match(rf"(?P<prefix>{prefixes})(?P<index>\d+)\.(?P<part>.+)", name)
        if match is None:
            return name
        index = int(match["index"])
        if index >= len(self.layers):
            original = index - len(self.layers) + self.architecture.num_layers
            return f"{match['prefix']}{original}.{match['part']}"
        layer = self.layers[index]
        block = self.architecture.block_of(match["part"])
        origin = layer.attention if block is Block.ATTENTION else layer.mlp
        if not isinstance(origin, FromBase):
            return None
        return f"{match['prefix']}{origin.base}.{match['part']}"

    def config(self, dtype: torch.dtype) -> dict[str, Any]:
        """The result's config.json, for weights that are served in `dtype`."""
        base, family = self.architecture, self.architecture.family
        before = base.decoder_config
        decoder = {k: v for k, v in before.items() if k not in _NEVER_WRITTEN | family.dropped}
        decoder |= {key: value for key, value in family.absent_means.items() if key not in decoder}
        for name, field in {family.sizes.layers: LayerCount(), **family.layer_fields}.items():
            if name not in family.dropped:
                decoder |= field.remapped(name, before, self.layers)
        if family.re_expressed:
            decoder["model_type"] = self._result.model_type
        decoder |= base.switched_on
        decoder |= family.rewritten
        config = {key: value for key, value in base.config.items() if key not in _NEVER_WRITTEN}
        key = family.decoder_key
        config = decoder if key is None else config | {key: decoder}
        config["architectures"] = [self._result.name]
        served = str(dtype).removeprefix("torch.")
        for part in (decoder, config):
            part |= {key: served for key in _DTYPE_KEYS if key in part}
        if not any(key in config for key in _DTYPE_KEYS):
            config["dtype"] = served
        if family.re_expressed:
            config["head_dim"] = base.head_dim
        family.special.finish_config(base, config)
        return config

    def config_changes(self, new: Mapping[str, Any]) -> dict[str, ConfigChange]:
        """What differs between the base's config.json and `new`, by key."""
        before, changes = self.architecture.config, {}
        for key in sorted({*before, *new}):
            sides = {
                side: config[key]
                for side, config in (("before", before), ("after", new))
                if key in config
            }
            if len(sides) == 1 or sides["before"] != sides["after"]:
                changes[key] = ConfigChange(**sides)
        return changes

    def bias_tensors(self, base_tensors: Mapping[str, TensorEntry]) -> dict[str, Zeros]:
        """Zero biases for the base's own layers, wherever the result's class has one more.

        Args:
            base_tensors: the base's tensors by their names there.

        Returns:
            By name in the result, in the dtype of the weight beside the bias.

        Raises:
            CheckpointError: a weight is missing or of another shape than config.json says, or
                the file has a bias that the base's class does not read and the result's would.
        """
        base = self.architecture
        biases = {}
        parts = {part.name: part for entry in base_tensors.values() for part in base.split(entry)}
        for layer in range(base.num_layers):
            for projection, sizes in base.base_projections(layer).items():
                name = self.stored_name(parts, f"{layer}.{projection}")
                dtype = _dtype_of(parts, f"{name}.weight", sizes.shape)
                bias = f"{name}.bias"
                if bias in parts:
                    if projection in base.biased_after - base.biased_before:
                        raise CheckpointError(
                            f"tensor {bias!r}: {base.family.class_name} does not read it with "
                            "this config.json, and the result would; remove it from the base"
                        )
                elif projection in base.biased_after:
                    biases[self.rename(bias)] = Zeros((sizes.outputs,), dtype)
        return biases

    def output_bias_name(self, base_tensors: Mapping[str, TensorEntry], layer: int) -> str:
        """The name in the result of the output bias of a layer of the base."""
        stored = self.stored_name(base_tensors, f"{layer}.{self.architecture.output_bias}")
        return self.rename(f"{stored}.bias")

    def stored_name(self, tensors: Mapping[str, TensorEntry], name: str) -> str:
        """The name of a layer's part with the prefix that the base's file uses."""
        named = (f"{prefix}{name}" for prefix in self._result.prefixes)
        return next((n for n in named if f"{n}.weight" in tensors), self._result.prefix + name)

    def inserted_tensors(
        self, splice: int, layer: CompiledLayer, dtype: torch.dtype
    ) -> dict[str, NewTensor]:
        """All tensors of an inserted layer, by name.

        Args:
            splice: which inserted layer it is, as `layers` counts them.
            layer: what it computes; padded with zeros to the base's width.
            dtype: of the tensors.

        Raises:
            UnsupportedError: the layer has more neurons than fit.
        """
        room = self.architecture.intermediate_size
        if layer.neurons > room:
            raise UnsupportedError(
                f"the edits of one inserted layer need {layer.neurons} neurons, and a layer of "
                f"this model has {room}: {layer.neurons - room} too many; give fewer edits"
            )
        layout = self.inserted_layout(splice)
        tensors: dict[str, NewTensor] = {
            name: torch.full(tensor.shape, tensor.value, dtype=dtype)
            if tensor.value
            else Zeros(tensor.shape, dtype)
            for name, tensor in layout.items()
        }
        filled = layer.written()
        for role, name in self.filled_names(splice).items():
            value = filled[role].T.contiguous() if self.is_transposed(name) else filled[role]
            if value.any():
                tensors[name] = Padded(value.to(dtype), layout[name].shape)
        return tensors

    def filled_names(self, splice: int) -> dict[str, str]:
        """The tensor of an inserted layer that each role of a construction lies in.

        Args:
            splice: which inserted layer it is, as `layers` counts them.
        """
        layout = self.inserted_layout(splice)
        prefix = f"{self._result.prefix}{inserted_indices(self.layers)[splice]}."
        return {
            role: prefix + part for role, part in self._filled.items() if prefix + part in layout
        }

    def is_transposed(self, name: str) -> bool:
        """Whether a tensor of an inserted layer is the weight of a map stored the other way."""
        part = name.removeprefix(self._result.prefix).partition(".")[2]
        projection = self.architecture.projections.get(part.removesuffix(".weight"))
        return projection is not None and projection.transposed

    def inserted_layout(self, splice: int) -> dict[str, InsertedTensor]:
        """Every tensor that an inserted layer has in the result, by name.

        Of a layer that is torn apart, the attention is silent, and the constant that it would add
        is added by the base's attention in front of the MLP.

        Args:
            splice: which inserted layer it is, as `layers` counts them.
        """
        mlp, attention = (
            f"{self._result.prefix}{inserted_indices(self.layers, block)[splice]}."
            for block in (Block.MLP, Block.ATTENTION)
        )
        base, silent = self.architecture, self._result.block.silent_attention
        layout = {}
        for part, tensor in self._inserted_parts.items():
            if mlp == attention or base.block_of(part) is Block.MLP:
                layout[mlp + part] = tensor
                continue
            value = silent.get(part, 0.0) if tensor.value is None else tensor.value
            layout[attention + part] = InsertedTensor(tensor.shape, value)
            if part == f"{base.carrier}.bias":
                layout[mlp + part] = tensor
        return layout

    @property
    def _inserted_parts(self) -> dict[str, InsertedTensor]:
        """Every tensor of an inserted layer, by name in the layer."""
        base = self.architecture
        parts = {}
        for projection, sizes in base.projections.items():
            parts[f"{projection}.weight"] = InsertedTensor(sizes.shape, 0.0)
            if projection in base.biased_after:
                parts[f"{projection}.bias"] = InsertedTensor((sizes.outputs,), 0.0)
        for norm in self._result.block.norms:
            parts[norm.name] = InsertedTensor((base.length(norm.size),), norm.neutral)
        for name in self._filled.values():
            parts[name] = InsertedTensor(parts[name].shape, None)
        return parts

    @property
    def _filled(self) -> dict[str, str]:
        """Where each tensor that a construction fills lies in the layer, by its role."""
        roles = dict(self._result.block.roles)
        if not self.architecture.reads_attention:
            # A layer before this one adds it.
            del roles["attention_bias"]
        return roles


def _dtype_of(tensors: Mapping[str, TensorEntry], name: str, shape: tuple[int, ...]) -> torch.dtype:
    if name not in tensors:
        raise CheckpointError(f"tensor {name!r} is missing from the base's weights")
    entry = tensors[name]
    if tuple(entry.shape) != shape:
        raise CheckpointError(
            f"tensor {name!r}: found shape {list(entry.shape)}, expected {list(shape)} from "
            "config.json"
        )
    for dtype, stored in DTYPE_NAMES.items():
        if stored == entry.dtype:
            return dtype
    raise UnsupportedError(
        f"tensor {name!r}: found dtype {entry.dtype}, expected one of "
        f"{', '.join(DTYPE_NAMES.values())}"
    )
