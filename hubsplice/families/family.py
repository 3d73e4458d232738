"""A model family as one declaration: data that can be read without any other file's logic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hubsplice.families.blocks import BlockKind
from hubsplice.families.engines import EngineKey, Support
from hubsplice.families.known import Measured, Weights
from hubsplice.families.layer_fields import LayerField

if TYPE_CHECKING:
    from hubsplice.families.architecture import Architecture
    from hubsplice.files.safetensors_header import TensorEntry


@dataclass(frozen=True)
class BiasSwitch:
    """A field of config.json that gives biases to linear maps.

    Attributes:
        field: its name.
        projections: what gets a bias, by name in the layer.
        default: whether the class takes it as on where config.json does not say.
        always: whether every splice of the class writes that it is on. A base that had it on
            already, such as a spliced one, then shows no change in its manifest.
    """

    field: str
    projections: tuple[str, ...]
    default: bool = False
    always: bool = False


@dataclass(frozen=True)
class ModelClass:
    """A class of transformers that spliced models are served as.

    Attributes:
        name: as `architectures` in config.json has it.
        model_type: as config.json has it.
        block: its decoder layers.
        prefixes: what may stand before a layer's index in tensor names; new tensors get the first.
        switches: the fields that give biases.
        fixed_biases: the linear maps that have a bias whatever config.json says.
        equal_heads: whether the number of heads has to divide the width of the stream.
        engines: what each engine that was examined does with the class.
        vllm_prefix: what vLLM has in the place of the first prefix, where it renames modules.
        without_mlp_biases: the class with splices that need no biases in the MLP, for engines that
            ignore those; None where there is none.
    """

    name: str
    model_type: str
    block: BlockKind
    prefixes: tuple[str, ...] = ("model.layers.",)
    switches: tuple[BiasSwitch, ...] = ()
    fixed_biases: tuple[str, ...] = ()
    equal_heads: bool = False
    engines: Mapping[EngineKey, Support] = field(default_factory=dict)
    vllm_prefix: str | None = None
    without_mlp_biases: ModelClass | None = None

    @property
    def prefix(self) -> str:
        """What stands before a layer's index in the names of new tensors and modules."""
        return self.prefixes[0]

    @property
    def projections(self) -> tuple[str, ...]:
        """The linear maps of a layer, by name in the layer."""
        return tuple(linear.name for linear in self.block.linear_maps)


@dataclass(frozen=True)
class Sizes:
    """What the decoder's configuration calls its sizes.

    Attributes:
        hidden: the width of the stream.
        layers: the number of layers.
        mlp: the number of neurons.
        mlp_multiple: how many times the width there are where `mlp` is null or missing; None
            where that is an error.
    """

    hidden: str = "hidden_size"
    layers: str = "num_hidden_layers"
    mlp: str = "intermediate_size"
    mlp_multiple: int | None = None


@dataclass(frozen=True)
class Named:
    """A field of the decoder's configuration.

    Attributes:
        name: the field.
        default: what the class takes where it is missing.
        null_is_missing: whether null means the same.
    """

    name: str
    default: Any
    null_is_missing: bool = False

    def of(self, config: Mapping[str, Any]) -> Any:
        """The value in a decoder's configuration."""
        value = config.get(self.name, self.default)
        return self.default if value is None and self.null_is_missing else value


@dataclass(frozen=True)
class Refused:
    """Values of a field that no splice can keep the meaning of.

    Attributes:
        field: of the decoder's configuration.
        reason: for the message; `{value!r}` stands for what was found.
        harmless: the values that are fine, beside a missing field.
    """

    field: str
    reason: str
    harmless: tuple[Any, ...] = (None, False, 0)

    def problems(self, config: Mapping[str, Any]) -> Iterator[str]:
        """Why a configuration is refused; nothing where it is not."""
        value = config.get(self.field)
        if value not in (*self.harmless, [], {}):
            yield f"{self.field}: {self.reason.format(value=value)}"


class Special:
    """What one family needs beyond data; nothing by default. A family's own file has a subclass."""

    def problems(self, base: Architecture) -> Iterator[str]:  # noqa: ARG002
        """Why a base can't be spliced, each beginning with the field."""
        return iter(())

    def finish_config(self, base: Architecture, config: dict[str, Any]) -> None:
        """Change the result's configuration after everything else."""

    def split(self, base: Architecture, tensor: TensorEntry) -> tuple[TensorEntry, ...]:  # noqa: ARG002
        """The rows of a tensor of the base that are tensors of their own in the result.

        They cover the tensor in order, so that its bytes stay where they are, and are named as in
        the base.
        """
        return (tensor,)

    def joined(
        self,
        base: Architecture,  # noqa: ARG002
        tensors: Sequence[TensorEntry],
    ) -> Sequence[TensorEntry]:
        """The tensors of a base's file, from those of the result, named as in the base.

        The other way of `split`.
        """
        return tensors

    def notes(self, base: Architecture) -> tuple[str, ...]:  # noqa: ARG002
        """What no construction reaches in this family, one sentence each, for reports."""
        return ()


@dataclass(frozen=True)
class Family:
    """What a base of one `model_type` is like, and what a splice makes of it.

    Attributes:
        model_type: as its config.json has it.
        title: what texts call it.
        class_name: its class in transformers.
        becomes: the class that the result is served as.
        eps: the epsilon of the norm that an inserted MLP reads through.
        activation: the MLP's.
        weights: the best evidence for its construction.
        measured: where figures are.
        sizes: what its configuration calls them.
        decoder_key: where config.json keeps the text decoder's fields; None for the top.
        defaults: sizes that the class takes where config.json leaves them out. They are never
            derived from others.
        absent_means: the same for fields that are written out in the result, since the result's
            class, or a server, takes something else for them.
        tied: whether embeddings are tied where config.json does not say.
        switches: the fields that give biases in the base's own class; None for those of `becomes`.
        fixed_biases: those that have one whatever config.json says; None for those of `becomes`.
        layer_fields: every field that goes by layers, beside their number, and what it means.
        dropped: fields that mean something else, or nothing, in the result.
        rewritten: fields that the result has with another value.
        refused: values that stand in the way of a splice.
        window: the field that says how far the base looks back, where the result can't.
        positions: the field that says how many positions there are, where they are looked up in a
            table.
        multiplier: what a layer's attention and its MLP are each multiplied by; None for one.
        parallel: the field that puts the MLP beside the attention; None where it never is.
        dense_layers: in a mixture of experts, the layers that are dense by their index.
        special: what is no data.
    """

    model_type: str
    title: str
    class_name: str
    becomes: ModelClass
    eps: Named
    activation: Named
    weights: Weights
    measured: tuple[Measured, ...] = ()
    sizes: Sizes = Sizes()
    decoder_key: str | None = None
    defaults: Mapping[str, int] = field(default_factory=dict)
    absent_means: Mapping[str, Any] = field(default_factory=dict)
    tied: bool = False
    switches: tuple[BiasSwitch, ...] | None = None
    fixed_biases: tuple[str, ...] | None = None
    layer_fields: Mapping[str, LayerField] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    rewritten: Mapping[str, Any] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()
    window: Named | None = None
    positions: Named | None = None
    multiplier: str | None = None
    parallel: Named | None = None
    dense_layers: Callable[[Mapping[str, Any], int], list[int]] | None = None
    special: Special = Special()  # noqa: RUF009

    @property
    def re_expressed(self) -> bool:
        """Whether the result is of another class than the base."""
        return self.class_name != self.becomes.name
