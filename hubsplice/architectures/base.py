"""What hubsplice has to know of a model family to splice its checkpoints."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar, final

import torch
from torch import Tensor

from hubsplice.architectures.compiled_layer import CompiledLayer
from hubsplice.architectures.inserted_tensor import InsertedTensor
from hubsplice.architectures.layer_fields import LayerCount, LayerField
from hubsplice.architectures.projection import Projection
from hubsplice.calibration import SiteActivations
from hubsplice.checkpoint.layer_map import (
    FromBase,
    LayerMap,
    inserted_indices,
    layer_map,
)
from hubsplice.checkpoint.layout import DTYPE_NAMES, NewTensor, Zeros
from hubsplice.checkpoint.manifest import SPLIT, ConfigChange
from hubsplice.checkpoint.padded import Padded
from hubsplice.checkpoint.safetensors_header import TensorEntry
from hubsplice.errors import CheckpointError, RecipeError, UnsupportedError
from hubsplice.intervention import Site
from hubsplice.place import Block, Place

CONFIG_FIELD = "base_model: config.json"
"""What messages call the base's configuration."""

# What says how the model was stored elsewhere, or asks for code.
_NEVER_WRITTEN = frozenset({"_name_or_path", "auto_map"})
_DTYPE_KEYS = ("dtype", "torch_dtype")

L = TypeVar("L", bound=CompiledLayer)


@dataclass(frozen=True, eq=False)
class Architecture(ABC, Generic[L]):
    """A base's family: its configuration and tensor names, before and after a splice.

    Everywhere, `layers` says where the result's layers come from, as `layer_map` gives it.

    A family says what it is in class variables and properties, and how its layers compute in
    `construct` and `layer_tensors`; the rest is the same for all.

    Attributes:
        config: the base's config.json.
    """

    class_name_before: ClassVar[str]
    class_name_after: ClassVar[str]

    layer_prefixes: ClassVar[tuple[str, ...]] = ("model.layers.",)
    """What may stand before a layer's index in tensor names; new tensors get the first."""

    attention_modules: ClassVar[tuple[str, ...]] = ("self_attn", "input_layernorm")
    """The parts of a layer that go with its attention; the others go with its MLP."""

    silent_attention: ClassVar[Mapping[str, float]] = {}
    """What an attention that adds nothing holds throughout in tensors that an edit may fill, by
    name in the layer, where that is not zero."""

    gate_module: ClassVar[str] = "mlp.gate_proj"
    """The module in a layer of the result whose output begins with the gate pre-activations."""

    decoder_key: ClassVar[str | None] = None
    """Where config.json keeps the text decoder's fields; None where they are at the top."""

    layer_fields: ClassVar[Mapping[str, LayerField]] = {}
    """Every field of the decoder's configuration that goes by layers, beside the number of
    layers: what it means, and so how it follows a splice."""

    absent_means: ClassVar[Mapping[str, Any]] = {}
    """What the family's class takes for keys that config.json leaves out, where the result's class
    takes something else; written out in the result."""

    dropped: ClassVar[frozenset[str]] = frozenset()
    """Keys of the base's decoder configuration that servers would act on, or that mean nothing,
    in the result's class."""

    rewritten: ClassVar[Mapping[str, Any]] = {}
    """Keys of the decoder's configuration that the result has with another value."""

    tied_when_absent: ClassVar[bool] = False
    """Whether embeddings are tied where config.json does not say."""

    config: Mapping[str, Any]

    @property
    def decoder_config(self) -> Mapping[str, Any]:
        """The part of config.json that describes the text decoder.

        Raises:
            CheckpointError: it is missing.
        """
        if self.decoder_key is None:
            return self.config
        part = self.config.get(self.decoder_key)
        if not isinstance(part, Mapping):
            raise CheckpointError(
                f"{CONFIG_FIELD}: {self.decoder_key}: found {part!r}, expected the fields of the "
                "text decoder"
            )
        return part

    @property
    def layer_count_field(self) -> str:
        """What the family calls the number of layers."""
        return "num_hidden_layers"

    @property
    def num_layers(self) -> int:
        """The base's number of decoder layers."""
        return self.size(self.layer_count_field)

    @property
    def hidden_size(self) -> int:
        """The width of the residual stream."""
        return self.size("hidden_size")

    @property
    def intermediate_size(self) -> int:
        """How many neurons an inserted layer has room for."""
        return self.size("intermediate_size")

    @property
    @abstractmethod
    def norm_eps(self) -> float:
        """The epsilon of the norm that an inserted MLP reads through."""

    @property
    def tied(self) -> bool:
        """Whether the output embeddings are the input embeddings, and not stored."""
        return bool(self.config.get("tie_word_embeddings", self.tied_when_absent))

    @property
    @abstractmethod
    def projections(self) -> Mapping[str, Projection]:
        """The linear maps of a layer of the result, by name in the layer."""

    def base_projections(self, layer: int) -> Mapping[str, Projection]:  # noqa: ARG002
        """Those of them that a layer of the base has; layers may differ."""
        return self.projections

    @property
    @abstractmethod
    def biased_before(self) -> frozenset[str]:
        """The projections that have a bias in the base's class with this config.json."""

    @property
    def biased_after(self) -> frozenset[str]:
        """The projections that have a bias in the result; no fewer than in the base."""
        return self.biased_before

    @property
    def output_bias(self) -> str | None:
        """The projection that writes what a layer's MLP adds to the stream, where the result has a
        bias there and the base none: a constant that is to be added can be put there."""
        return None

    @property
    def branch_multiplier(self) -> float:
        """What a layer's attention and its MLP each are multiplied by, before they are added."""
        return 1.0

    def output_bias_name(
        self, base_tensors: Mapping[str, TensorEntry], layer: int, layers: LayerMap
    ) -> str:
        """The name in the result of the output bias of a layer of the base."""
        stored = self._stored_name(base_tensors, f"{layer}.{self.output_bias}")
        return self.rename(f"{stored}.bias", layers)

    def validate(self) -> None:
        """Refuse a base that could not be spliced faithfully.

        Raises:
            UnsupportedError: one line per reason, each with the field and its value.
            CheckpointError: a size is missing or no positive whole number.
        """
        problems = [f"{CONFIG_FIELD}: {problem}" for problem in self.problems()]
        if problems:
            raise UnsupportedError("\n".join(problems))

    def problems(self) -> Iterator[str]:
        """The reasons why the base cannot be spliced, each beginning with the field."""
        classes = self.config.get("architectures")
        if classes != [self.class_name_before]:
            yield (
                f"architectures: found {classes!r}, expected {[self.class_name_before]!r}: only "
                "causal language models can be spliced"
            )
        for key in ("quantization_config", "compression_config"):
            if self.config.get(key):
                yield (
                    f"{key}: the base is quantised, and an inserted layer would be rounded with "
                    "it; splice the unquantised model and quantise the result"
                )
        if self.decoder_config.get("per_layer_config"):
            yield "per_layer_config: layers that differ from each other are not supported"
        for name, field in self.layer_fields.items():
            yield from field.problems(name, self.decoder_config, self.num_layers)

    def require_place(self, place: Place) -> None:
        """Refuse a place where an edit can't be.

        Raises:
            RecipeError: the base has no such layer.
        """
        first = -1 if place.block is Block.MLP else 0
        if not first <= place.layer < self.num_layers:
            raise RecipeError(
                f"{place.field}: found {place.layer}, expected {first} to {self.num_layers - 1}; "
                f"the base model has {self.num_layers} layers"
            )

    def layer_map(self, places: Sequence[Place]) -> LayerMap:
        """Where each layer of the result comes from, in order.

        Args:
            places: where each inserted layer is; a place that is named twice gets two layers, in
                that order.

        Raises:
            HubspliceError: of `require_place`.
        """
        for place in places:
            self.require_place(place)
        return layer_map(self.num_layers, places)

    def rename(self, name: str, layers: LayerMap) -> str:
        """The name in the result of the base's tensor `name`: only a layer's index moves."""
        prefixes = "|".join(map(re.escape, self.layer_prefixes))
        match = re.match(rf"(?P<prefix>{prefixes})(?P<index>\d+)\.(?P<part>.+)", name)
        if match is None:
            return name
        origin = FromBase(base=int(match["index"]))
        block = self.block_of(match["part"])
        origins = [x.attention if block is Block.ATTENTION else x.mlp for x in layers]
        # Layers beyond those that config.json counts stay behind them.
        moved = (
            origins.index(origin)
            if origin in origins
            else origin.base + len(layers) - self.num_layers
        )
        return f"{match['prefix']}{moved}.{match['part']}"

    def split(self, tensor: TensorEntry) -> tuple[TensorEntry, ...]:
        """The parts of a tensor of the base that the result's class has as tensors of their own.

        Most are left as they are. Parts are rows, and cover the tensor in order, so that its
        bytes stay where they are; they are named as in the base, before `rename`.

        Raises:
            CheckpointError: the tensor's shape is not what config.json says.
        """
        return (tensor,)

    def block_of(self, name: str) -> Block:
        """The block that a part of a layer belongs to, by the part's name in the layer."""
        of_attention = name.startswith(tuple(f"{module}." for module in self.attention_modules))
        return Block.ATTENTION if of_attention else Block.MLP

    def spliced_config(self, layers: LayerMap, dtype: torch.dtype) -> dict[str, Any]:
        """The result's config.json, for weights that are served in `dtype`."""
        before = self.decoder_config
        decoder = {k: v for k, v in before.items() if k not in _NEVER_WRITTEN | self.dropped}
        decoder |= {key: value for key, value in self.absent_means.items() if key not in decoder}
        for name, field in {self.layer_count_field: LayerCount(), **self.layer_fields}.items():
            if name not in self.dropped:
                decoder |= field.remapped(name, before, layers)
        decoder |= self.rewritten
        config = {key: value for key, value in self.config.items() if key not in _NEVER_WRITTEN}
        config = decoder if self.decoder_key is None else config | {self.decoder_key: decoder}
        config["architectures"] = [self.class_name_after]
        served = str(dtype).removeprefix("torch.")
        for part in (decoder, config):
            part |= {key: served for key in _DTYPE_KEYS if key in part}
        if not any(key in config for key in _DTYPE_KEYS):
            config["dtype"] = served
        return config

    def config_changes(self, new: Mapping[str, Any]) -> dict[str, ConfigChange]:
        """What differs between the base's config.json and `new`, by key."""
        changes = {}
        for key in sorted({*self.config, *new}):
            sides = {
                side: config[key]
                for side, config in (("before", self.config), ("after", new))
                if key in config
            }
            if len(sides) == 1 or sides["before"] != sides["after"]:
                changes[key] = ConfigChange(**sides)
        return changes

    def bias_tensors(
        self, base_tensors: Mapping[str, TensorEntry], layers: LayerMap
    ) -> dict[str, Zeros]:
        """Zero biases for the base's own layers, wherever the result's class has one more.

        Args:
            base_tensors: the base's tensors by their names there.
            layers: as everywhere.

        Returns:
            By name in the result, in the dtype of the weight beside the bias.

        Raises:
            CheckpointError: a weight is missing or of another shape than config.json says, or
                the file has a bias that the base's class does not read and the result's would.
        """
        biases = {}
        parts = {part.name: part for entry in base_tensors.values() for part in self.split(entry)}
        for layer in range(self.num_layers):
            for projection, sizes in self.base_projections(layer).items():
                name = self._stored_name(parts, f"{layer}.{projection}")
                dtype = _dtype_of(parts, f"{name}.weight", sizes.shape)
                bias = f"{name}.bias"
                if bias in parts:
                    if projection in self.biased_after - self.biased_before:
                        raise CheckpointError(
                            f"tensor {bias!r}: {self.class_name_before} does not read it with "
                            "this config.json, and the result would; remove it from the base"
                        )
                elif projection in self.biased_after:
                    biases[self.rename(bias, layers)] = Zeros((sizes.outputs,), dtype)
        return biases

    def _stored_name(self, tensors: Mapping[str, TensorEntry], name: str) -> str:
        """The name of a layer's part with the prefix that the base's file uses."""
        named = (f"{prefix}{name}" for prefix in self.layer_prefixes)
        return next((n for n in named if f"{n}.weight" in tensors), self.layer_prefixes[0] + name)

    def inserted_tensors(
        self, splice: int, layer: L, layers: LayerMap, dtype: torch.dtype
    ) -> dict[str, NewTensor]:
        """All tensors of an inserted layer, by name.

        Args:
            splice: which inserted layer it is, as `layers` counts them.
            layer: what it computes, one of `stacked`; padded with zeros to the base's width.
            layers: as everywhere.
            dtype: of the tensors.

        Raises:
            UnsupportedError: the layer has more neurons than fit.
        """
        room = self.intermediate_size
        if layer.neurons > room:
            raise UnsupportedError(
                f"the edits of one inserted layer need {layer.neurons} neurons, and a layer of "
                f"this model has {room}: {layer.neurons - room} too many; give fewer edits"
            )
        layout = self.inserted_layout(splice, layers)
        tensors: dict[str, NewTensor] = {
            name: torch.full(tensor.shape, tensor.value, dtype=dtype)
            if tensor.value
            else Zeros(tensor.shape, dtype)
            for name, tensor in layout.items()
        }
        index = inserted_indices(layers)[splice]
        for part, value in self.layer_tensors(layer).items():
            name = f"{self.layer_prefixes[0]}{index}.{part}"
            if name in layout and value.any():
                tensors[name] = Padded(value.to(dtype), layout[name].shape)
        return tensors

    @property
    def carrier(self) -> str | None:
        """The linear map of the base's attention whose bias can hold an inserted layer's constant.

        None where the base has that bias itself, which stays as it is, or where the constant is
        made of more than a bias.
        """
        return None

    def layers_per_splice(self, place: Place) -> int:
        """How many decoder layers one compiled layer is written as."""
        return 2 if place.block is Block.ATTENTION and self.carrier is None else 1

    def stacked(self, layer: L, place: Place) -> tuple[L, ...]:
        """The decoder layers that a compiled layer is written as, `layers_per_splice` of them.

        Behind the base's attention, the MLP of the edit reads its constant if the base's own
        attention can add that too. If not, the layer of the edit stays whole, and one that adds
        nothing is torn apart around it.
        """
        if self.layers_per_splice(place) == 1:
            return (layer,)
        dtype = next(iter(layer.tensors().values())).dtype
        around = replace(self.empty_layer(dtype), constants={"construction": SPLIT, "neurons": 0})
        return around, layer

    def inserted_layout(self, splice: int, layers: LayerMap) -> dict[str, InsertedTensor]:
        """Every tensor that an inserted layer has in the result, by name.

        Of a layer that is torn apart, the attention is silent, and the constant that it would add
        is added by the base's attention in front of the MLP.

        Args:
            splice: which inserted layer it is, as `layers` counts them.
            layers: as everywhere.
        """
        mlp, attention = (
            f"{self.layer_prefixes[0]}{inserted_indices(layers, block)[splice]}."
            for block in (Block.MLP, Block.ATTENTION)
        )
        layout = {}
        for part, tensor in self._inserted_parts.items():
            if mlp == attention or self.block_of(part) is Block.MLP:
                layout[mlp + part] = tensor
                continue
            value = self.silent_attention.get(part, 0.0) if tensor.value is None else tensor.value
            layout[attention + part] = InsertedTensor(tensor.shape, value)
            if part == f"{self.carrier}.bias":
                layout[mlp + part] = tensor
        return layout

    @property
    def _inserted_parts(self) -> dict[str, InsertedTensor]:
        """Every tensor of an inserted layer, by name in the layer."""
        parts = {}
        for projection, sizes in self.projections.items():
            parts[f"{projection}.weight"] = InsertedTensor(sizes.shape, 0.0)
            if projection in self.biased_after:
                parts[f"{projection}.bias"] = InsertedTensor((sizes.outputs,), 0.0)
        parts |= self.norms
        for name, value in self.layer_tensors(self.empty_layer(torch.float32)).items():
            shape = parts[name].shape if name in parts else tuple(value.shape)
            parts[name] = InsertedTensor(shape, None)
        return parts

    @property
    @abstractmethod
    def norms(self) -> Mapping[str, InsertedTensor]:
        """The tensors of an inserted layer's norms, by name in the layer."""

    @abstractmethod
    def layer_tensors(self, layer: L) -> dict[str, Tensor]:
        """What an edit fills, by name in the layer: the same names for all.

        A tensor that is smaller than the projection's or the norm's of its name is the beginning
        of it in every dimension, and zeros are the rest.
        """

    @abstractmethod
    def empty_layer(self, dtype: torch.dtype) -> L:
        """A layer that changes nothing, bit for bit."""

    @final
    def compile(self, site: Site, activations: SiteActivations, dtype: torch.dtype) -> L:
        """Compile a site's terms with the construction that suits the family.

        Args:
            site: what to compile.
            activations: calibration there.
            dtype: the serving precision.
        """
        return self.construct(site, activations.agreeing(), dtype)

    @abstractmethod
    def construct(self, site: Site, activations: SiteActivations, dtype: torch.dtype) -> L:
        """What `compile` gives, from the tokens at which the two precisions agree."""

    def size(self, name: str) -> int:
        """A size in config.json.

        Raises:
            CheckpointError: it is missing or no positive whole number.
        """
        value = self.decoder_config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(
                f"{CONFIG_FIELD}: {name}: found {value!r}, expected a positive whole number"
            )
        return value


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
