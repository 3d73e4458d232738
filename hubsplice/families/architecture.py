"""A base model: its family's declaration, read together with its config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hubsplice.checkpoint.layer_map import LayerMap, layer_map
from hubsplice.checkpoint.remote_code import code_reasons
from hubsplice.errors import CheckpointError, RecipeError, UnsupportedError
from hubsplice.families.family import BiasSwitch, Family
from hubsplice.families.layer_fields import SLIDING_ATTENTION, PerLayer
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import MLP, Projection, Size
from hubsplice.families.unsupported import REASONS
from hubsplice.files.safetensors_header import TensorEntry
from hubsplice.intervention.place import Block, Place

CONFIG_FIELD = "base_model: config.json"
"""What messages call the base's configuration."""


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a base, from its config.json; `validate` says whether it can be spliced.

    Raises:
        UnsupportedError: no family of that `model_type`, with the reason where it is known.
    """
    families = dict(FAMILIES.items())
    named = config.get("model_type")
    model_type = named if isinstance(named, str) else ""
    if model_type in families:
        return Architecture(families[model_type], config)
    reasons = [f"model_type: {_unsupported(named)}. Supported: {', '.join(families)}."]
    # A family that is known is one that transformers has, whatever code it came with.
    if model_type not in REASONS:
        reasons += code_reasons(config)
    raise UnsupportedError("\n".join(f"{CONFIG_FIELD}: {reason}" for reason in reasons))


def _unsupported(model_type: object) -> str:
    """Why there is no family of a base's own `model_type`, which is no misspelt wish."""
    if model_type is None:
        return "missing, expected the name of a family; is this a model's folder?"
    if isinstance(model_type, str) and model_type in REASONS:
        return f"{model_type!r} is not supported: {REASONS[model_type]}"
    return f"{model_type!r} is not supported: hubsplice has no declaration of this family"


@dataclass(frozen=True)
class Held:
    """What a carrier's empty layers have fixed, in families whose blocks end in a norm.

    Attributes:
        silent: the channels that its norms silence; see `HeldNorms`.
        neurons: how many there are for edits.
    """

    silent: tuple[int, ...]
    neurons: int


@dataclass(frozen=True, eq=False)
class Architecture:
    """What a base is, as far as a splice depends on it.

    Attributes:
        family: the declaration.
        config: the base's config.json.
        held: what is fixed of its inserted layers; None where an edit chooses everything.
    """

    family: Family
    config: Mapping[str, Any]
    held: Held | None = None

    @cached_property
    def decoder_config(self) -> Mapping[str, Any]:
        """The part of config.json that describes the text decoder.

        Raises:
            CheckpointError: it is missing.
        """
        key = self.family.decoder_key
        if key is None:
            return self.config
        part = self.config.get(key)
        if not isinstance(part, Mapping):
            raise CheckpointError(
                f"{CONFIG_FIELD}: {key}: found {part!r}, expected the fields of the text decoder"
            )
        return part

    def size(self, name: str) -> int:
        """A size in config.json, or the family's default for it.

        Raises:
            CheckpointError: it is missing or no positive whole number.
        """
        value = self.decoder_config.get(name, self.family.defaults.get(name))
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(
                f"{CONFIG_FIELD}: {name}: found {value!r}, expected a positive whole number"
            )
        return value

    @property
    def num_layers(self) -> int:
        """The base's number of decoder layers."""
        return self.size(self.family.sizes.layers)

    @property
    def hidden_size(self) -> int:
        """The width of the residual stream."""
        return self.size(self.family.sizes.hidden)

    @property
    def intermediate_size(self) -> int:
        """How many neurons an inserted layer has room for."""
        sizes = self.family.sizes
        if sizes.mlp_multiple is not None and self.decoder_config.get(sizes.mlp) is None:
            return sizes.mlp_multiple * self.hidden_size
        return self.size(sizes.mlp)

    @property
    def most_positions(self) -> int | None:
        """How long a text can be, where positions are looked up in a table; None for any length."""
        named = self.family.positions
        return None if named is None else int(named.of(self.decoder_config))

    @property
    def head_dim(self) -> int:
        """The width of one attention head."""
        return self._stated("head_dim") or self.hidden_size // self.size("num_attention_heads")

    @property
    def num_key_value_heads(self) -> int:
        """How many heads keys and values have."""
        return self._stated("num_key_value_heads") or self.size("num_attention_heads")

    def _stated(self, name: str) -> int | None:
        """A size as config.json or the family's class has it; None where it follows from others.

        That is so where config.json says null, whatever the class takes for a missing field.
        """
        if name in self.family.defaults:
            return self.size(name)
        if name not in self.decoder_config:
            return self.family.absent_means.get(name)
        return None if self.decoder_config[name] is None else self.size(name)

    @property
    def norm_eps(self) -> float:
        """The epsilon of the norm that an inserted MLP reads through."""
        return float(self.family.eps.of(self.decoder_config))

    @property
    def activation(self) -> Any:
        """The MLP's activation, by transformers' name."""
        return self.family.activation.of(self.decoder_config)

    @property
    def tied(self) -> bool:
        """Whether the output embeddings are the input embeddings, and not stored."""
        fields = {**self.decoder_config, **self.config}
        return bool(fields.get("tie_word_embeddings", self.family.tied))

    @property
    def branch_multiplier(self) -> float:
        """What a layer's attention and its MLP each are multiplied by, before they are added."""
        field = self.family.multiplier
        return 1.0 if field is None else float(self.decoder_config.get(field, 1.0))

    @property
    def reads_attention(self) -> bool:
        """Whether the MLP reads the stream that attention has been added to."""
        parallel = self.family.parallel
        return parallel is None or not parallel.of(self.decoder_config)

    def length(self, size: Size) -> int:
        """A size of this model."""
        match size:
            case Size.HIDDEN:
                return self.hidden_size
            case Size.MLP:
                return self.intermediate_size
            case Size.HEAD:
                return self.head_dim
            case Size.QUERIES:
                return self.size("num_attention_heads") * self.head_dim
            case Size.KEYS:
                return self.num_key_value_heads * self.head_dim
            case Size.FUSED_QKV:
                return 3 * self.hidden_size

    @cached_property
    def projections(self) -> Mapping[str, Projection]:
        """The linear maps of a layer of the result, by name in the layer."""
        return {
            linear.name: Projection(
                self.length(linear.outputs), self.length(linear.inputs), linear.transposed
            )
            for linear in self.family.becomes.block.linear_maps
        }

    def base_projections(self, layer: int) -> Mapping[str, Projection]:
        """Those of them that a layer of the base has; layers may differ."""
        dense = self.family.dense_layers
        if dense is None:
            return self.projections
        listed = {
            *(self.decoder_config.get("mlp_only_layers") or []),
            *dense(self.decoder_config, self.num_layers),
        }
        if layer in listed:
            return self.projections
        return {name: sizes for name, sizes in self.projections.items() if name not in MLP}

    @property
    def biased_before(self) -> frozenset[str]:
        """The projections that have a bias in the base's class with this config.json."""
        family, result = self.family, self.family.becomes
        switches = result.switches if family.switches is None else family.switches
        fixed = result.fixed_biases if family.fixed_biases is None else family.fixed_biases
        on = (switch.projections for switch in switches if self._is_on(switch))
        return frozenset(fixed).union(*on)

    @property
    def biased_after(self) -> frozenset[str]:
        """The projections that have a bias in the result; no fewer than in the base."""
        if not self.reads_attention:
            # Another layer adds the constant, so that attention needs no bias.
            return self.biased_before
        result = self.family.becomes
        return frozenset(result.fixed_biases).union(*(s.projections for s in result.switches))

    @property
    def switched_on(self) -> dict[str, bool]:
        """The fields that the result says biases with."""
        if not self.reads_attention:
            return {}
        switches = self.family.becomes.switches
        return {s.field: True for s in switches if s.always or not self._is_on(s)}

    def _is_on(self, switch: BiasSwitch) -> bool:
        return bool(self.decoder_config.get(switch.field, switch.default))

    @property
    def output_bias(self) -> str | None:
        """The projection that writes what a layer's MLP adds to the stream, where the result has a
        bias there and the base none: a constant that is to be added can be put there."""
        name = self.family.becomes.block.output_map
        return None if name in self.biased_before else name

    @property
    def carrier(self) -> str | None:
        """The linear map of the base's attention whose bias can hold an inserted layer's constant.

        None where the base has that bias itself, which stays as it is, or where the constant is
        made of more than a bias.
        """
        name = self.family.becomes.block.carrier
        return None if name in self.biased_before else name

    def layers_per_splice(self, place: Place) -> int:
        """How many decoder layers one compiled layer is written as."""
        if not self.reads_attention:
            return 2
        return 2 if place.block is Block.ATTENTION and self.carrier is None else 1

    def block_of(self, name: str) -> Block:
        """The block that a part of a layer belongs to, by the part's name in the layer."""
        modules = self.family.becomes.block.attention_modules
        of_attention = name.startswith(tuple(f"{module}." for module in modules))
        return Block.ATTENTION if of_attention else Block.MLP

    def split(self, tensor: TensorEntry) -> tuple[TensorEntry, ...]:
        """The parts of a tensor of the base that the result's class has as tensors of their own.

        Raises:
            CheckpointError: the tensor's shape is not what config.json says.
        """
        return self.family.special.split(self, tensor)

    def joined(self, tensors: Sequence[TensorEntry]) -> Sequence[TensorEntry]:
        """The tensors of one of the base's files, from the parts that `split` gives of them.

        Args:
            tensors: in the order of the data, under the names of the parts in the base.

        Raises:
            CheckpointError: some parts of a tensor are there, and not all.
        """
        return self.family.special.joined(self, tensors)

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

    def require_place(self, place: Place) -> None:
        """Refuse a place where an edit can't be.

        Raises:
            RecipeError: the base has no such layer.
            UnsupportedError: the base has no stream there.
        """
        first = -1 if place.block is Block.MLP else 0
        if not first <= place.layer < self.num_layers:
            raise RecipeError(
                f"{place.field}: found {place.layer}, expected {first} to {self.num_layers - 1}; "
                f"the base model has {self.num_layers} layers"
            )
        if place.block is Block.ATTENTION and not self.reads_attention:
            assert self.family.parallel is not None
            raise UnsupportedError(
                f"{place.field}: found {place.layer}, expected after_layer: with "
                f"{self.family.parallel.name} the MLP reads the stream beside the attention, and "
                "what attention adds joins it only after the MLP: there is no stream between the "
                "two"
            )

    def validate(self) -> None:
        """Refuse a base that could not be spliced faithfully.

        Raises:
            UnsupportedError: one line per reason, each with the field and its value.
            CheckpointError: a size is missing or no positive whole number.
        """
        # Sizes raise by themselves where they are missing.
        _ = self.num_layers, self.hidden_size, self.intermediate_size
        problems = [f"{CONFIG_FIELD}: {problem}" for problem in self.problems()]
        if problems:
            raise UnsupportedError("\n".join(problems))

    def problems(self) -> Iterator[str]:
        """The reasons why the base cannot be spliced, each beginning with the field."""
        family, decoder = self.family, self.decoder_config
        yield from self._class_problems()
        if decoder.get("per_layer_config"):
            yield "per_layer_config: layers that differ from each other are not supported"
        if decoder.get("layer_types") == []:
            yield (
                f"layer_types: found an empty list, expected null or a list of {self.num_layers}, "
                "one for each layer"
            )
        yield from self._padding_problems()
        for name, field in family.layer_fields.items():
            yield from field.problems(name, decoder, self.num_layers)
        yield from self._activation_problems()
        yield from self._head_problems()
        yield from self._window_problems()
        yield from self._missing_window_problems()
        for refused in family.refused:
            yield from refused.problems(decoder)
        if not self.branch_multiplier:
            yield f"{family.multiplier}: found 0, expected another number: no layer adds anything"
        yield from family.special.problems(self)
        # Last: another copy of the model may be free of it, and not of what is said above.
        yield from self._quantization_problems()

    def _class_problems(self) -> Iterator[str]:
        expected = [self.family.class_name]
        classes = self.config.get("architectures")
        if classes == expected:
            return
        if not classes:
            yield (
                f"architectures: missing, expected {expected!r}, by which servers choose the "
                "class; if the folder holds such a model, write that into its config.json"
            )
            return
        yield (
            f"architectures: found {classes!r}, expected {expected!r}: only causal language models "
            "can be spliced"
        )
        yield from code_reasons(self.config)

    def _quantization_problems(self) -> Iterator[str]:
        for key in ("quantization_config", "compression_config"):
            settings = self.config.get(key)
            if settings:
                method = settings.get("quant_method") if isinstance(settings, Mapping) else None
                yield (
                    f"{key}: the base is quantised{f' ({method})' if method else ''}: an inserted "
                    "layer would be rounded with it, and its thresholds lost; splice the "
                    "unquantised model and quantise the result"
                )

    def _padding_problems(self) -> Iterator[str]:
        name, decoder = "pad_token_id", self.decoder_config
        padding = decoder.get(name, self.family.absent_means.get(name))
        vocabulary = decoder.get("vocab_size", self.family.absent_means.get("vocab_size"))
        if isinstance(padding, int) and isinstance(vocabulary, int) and padding >= vocabulary:
            found = "found" if name in decoder else "nothing, which means"
            yield (
                f"{name}: {found} {padding}, expected less than vocab_size ({vocabulary}): "
                "transformers refuses a token that has no embedding"
            )

    def _activation_problems(self) -> Iterator[str]:
        allowed = self.family.becomes.block.activations
        if self.activation not in allowed:
            expected = sorted(map(repr, allowed))
            names = expected[0] if len(expected) == 1 else f"one of {', '.join(expected)}"
            yield (
                f"{self.family.activation.name}: found {self.activation!r}, expected {names}: the "
                "construction needs that activation"
            )

    def _head_problems(self) -> Iterator[str]:
        if not self.family.becomes.equal_heads:
            return
        heads = self.size("num_attention_heads")
        if self.hidden_size % heads:
            yield (
                f"num_attention_heads: found {heads}, expected a divisor of hidden_size "
                f"({self.hidden_size}), which transformers' Llama requires"
            )

    def _missing_window_problems(self) -> Iterator[str]:
        """That layers which look back so far only are given no distance."""
        field, decoder = self.family.layer_fields.get("layer_types"), self.decoder_config
        if decoder.get("sliding_window", 0) is not None or not isinstance(field, PerLayer):
            return
        if SLIDING_ATTENTION in field.entries("layer_types", decoder, self.num_layers):
            yield (
                "sliding_window: found None, expected a number: some of the layers have a window, "
                "and transformers does not run them without its size"
            )

    def _window_problems(self) -> Iterator[str]:
        """Why a base whose class looks back so far only can't become a class without a window."""
        named = self.family.window
        if named is None:
            return
        window = named.of(self.decoder_config)
        limit = "max_position_embeddings"
        stated = limit in self.decoder_config
        positions = self.size(limit) if stated else self.family.absent_means[limit]
        # A window that no position reaches beyond changes nothing.
        if window is not None and window < positions:
            absent = named.name not in self.decoder_config
            found = "nothing, which means" if absent else "found"
            yield (
                f"{named.name}: {found} {window!r}, expected null or at least {limit} "
                f"({positions}): the model would be served as a Llama, which has no window"
            )
