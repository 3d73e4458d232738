"""What hubsplice has to know of a model family to splice its checkpoints."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hubsplice.architectures.spliced_layer import SplicedLayer
from hubsplice.calibration import SiteActivations
from hubsplice.checkpoint.layout import Zeros
from hubsplice.checkpoint.manifest import ConfigChange, FromBase, FromSplice
from hubsplice.checkpoint.safetensors_header import TensorEntry
from hubsplice.errors import CheckpointError, RecipeError, UnsupportedError
from hubsplice.intervention import Site

CONFIG_FIELD = "base_model: config.json"
"""What messages call the base's configuration."""

_LAYER = re.compile(r"(?P<prefix>model\.layers\.)(?P<index>\d+)(?=\.)")


@dataclass(frozen=True, eq=False)
class Architecture(ABC):
    """A base's family: its configuration and tensor names, before and after a splice.

    Everywhere, `after_layers` holds the base layers whose outputs are edited, one for each
    inserted layer; a layer that is named twice gets two layers after it, in that order.

    Attributes:
        config: the base's config.json.
    """

    class_name_before: ClassVar[str]
    class_name_after: ClassVar[str]

    config: Mapping[str, Any]

    @property
    def num_layers(self) -> int:
        """The base's number of decoder layers."""
        return self.size("num_hidden_layers")

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
    @abstractmethod
    def tied(self) -> bool:
        """Whether the output embeddings are the input embeddings, and not stored."""

    def validate(self) -> None:
        """Refuse a base that could not be spliced faithfully.

        Raises:
            UnsupportedError: one line per reason, each with the field and its value.
            CheckpointError: a size is missing or no positive whole number.
        """
        problems = [f"{CONFIG_FIELD}: {problem}" for problem in self.problems()]
        if problems:
            raise UnsupportedError("\n".join(problems))

    @abstractmethod
    def problems(self) -> Iterator[str]:
        """The reasons why the base cannot be spliced, each beginning with the field."""

    def layer_map(self, after_layers: Sequence[int]) -> tuple[FromBase | FromSplice, ...]:
        """Where each layer of the result comes from, in order.

        Raises:
            RecipeError: the base has no such layer.
        """
        for layer in after_layers:
            if not 0 <= layer < self.num_layers:
                raise RecipeError(
                    f"after_layer: found {layer}, expected 0 to {self.num_layers - 1}; the base "
                    f"model has {self.num_layers} layers"
                )
        result: list[FromBase | FromSplice] = []
        for base in range(self.num_layers):
            result.append(FromBase(base=base))
            result += [
                FromSplice(splice=i) for i, after in enumerate(after_layers) if after == base
            ]
        return tuple(result)

    def inserted_indices(self, after_layers: Sequence[int]) -> tuple[int, ...]:
        """The index in the result of each inserted layer, in the order of `after_layers`."""
        found = {
            layer.splice: index
            for index, layer in enumerate(self.layer_map(after_layers))
            if isinstance(layer, FromSplice)
        }
        return tuple(found[i] for i in range(len(after_layers)))

    def rename(self, name: str, after_layers: Sequence[int]) -> str:
        """The name in the result of the base's tensor `name`: only a layer's index moves."""
        match = _LAYER.match(name)
        if match is None:
            return name
        index = int(match["index"])
        moved = index + sum(after < index for after in after_layers)
        return f"{match['prefix']}{moved}{name[match.end() :]}"

    @abstractmethod
    def spliced_config(self, after_layers: Sequence[int], dtype: torch.dtype) -> dict[str, Any]:
        """The result's config.json, for weights that are served in `dtype`."""

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

    @abstractmethod
    def bias_tensors(
        self, base_tensors: Mapping[str, TensorEntry], after_layers: Sequence[int]
    ) -> dict[str, Zeros]:
        """Zero biases for the base's own layers, wherever the result's class has one more.

        Args:
            base_tensors: the base's tensors by their names there.
            after_layers: as everywhere.

        Returns:
            By name in the result, in the dtype of the weight beside the bias.

        Raises:
            CheckpointError: a weight is missing or of another shape than config.json says, or
                the file has a bias that the base's class does not read and the result's would.
        """

    @abstractmethod
    def inserted_tensors(
        self, index: int, layer: SplicedLayer, dtype: torch.dtype
    ) -> dict[str, Tensor | Zeros]:
        """All tensors of an inserted layer, by name.

        Args:
            index: the layer's index in the result.
            layer: what it computes; padded with zeros to the width of the base's layers.
            dtype: of the tensors.

        Raises:
            UnsupportedError: the layer has more neurons than fit.
        """

    @abstractmethod
    def compile(self, site: Site, activations: SiteActivations, dtype: torch.dtype) -> SplicedLayer:
        """Compile a site's terms with the construction that suits the family."""

    def size(self, name: str) -> int:
        """A size in config.json.

        Raises:
            CheckpointError: it is missing or no positive whole number.
        """
        value = self.config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(
                f"{CONFIG_FIELD}: {name}: found {value!r}, expected a positive whole number"
            )
        return value
