"""How the fields of config.json that go by layers follow the layers of a splice.

A family declares all of them in one table, from a field's name to what it means: then a splice
moves every one of them, and none is recomputed by a server from an index that has shifted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from hubsplice.checkpoint.layer_map import FromBase, FromSplice, LayerMap

FULL_ATTENTION = "full_attention"
SLIDING_ATTENTION = "sliding_attention"


@dataclass(frozen=True)
class EveryNth:
    """A list in which every n-th entry, counted from 1, differs from the others.

    Attributes:
        period: n.
        nth: every n-th entry.
        others: the other entries.
        field: of the decoder's configuration, which gives n where it is there.
    """

    period: int
    nth: Any
    others: Any
    field: str | None = None

    def __call__(self, config: Mapping[str, Any], num_layers: int) -> list[Any]:
        """The list for a number of layers."""
        period = self.period if self.field is None else config.get(self.field, self.period)
        return [self.others if (layer + 1) % period else self.nth for layer in range(num_layers)]


class LayerField(ABC):
    """The meaning of one field."""

    @abstractmethod
    def remapped(self, name: str, config: Mapping[str, Any], layers: LayerMap) -> dict[str, Any]:
        """What the result's configuration holds.

        Args:
            name: the field's.
            config: the base's decoder configuration.
            layers: where each layer of the result comes from.

        Returns:
            The field and its value, or nothing where the result must not or need not have it.
        """

    def problems(self, name: str, config: Mapping[str, Any], num_layers: int) -> Iterator[str]:  # noqa: ARG002
        """Why the base's value can't be followed, each beginning with the field."""
        return iter(())


@dataclass(frozen=True)
class LayerCount(LayerField):
    """The number of layers."""

    @override
    def remapped(self, name: str, config: Mapping[str, Any], layers: LayerMap) -> dict[str, Any]:
        return {name: len(layers)}


@dataclass(frozen=True)
class PerLayer(LayerField):
    """A list with an entry for each layer, which says what its attention is like.

    Attributes:
        inserted: the entry of an inserted layer, unless no layer of the base has it. Then it is
            one of theirs: what its attention adds does not depend on what it sees, and some
            servers do not read the list, and know one kind of layer for the whole model.
        implied: the list that the family's class takes where the field is missing or empty, from
            the configuration and the number of layers: it is then written out, since a server
            would recompute it for the layers as they are counted after the splice. None where a
            missing field means nothing that depends on the layer.
        only: the one entry that the result's class has; None for any.
    """

    inserted: Any
    implied: Callable[[Mapping[str, Any], int], list[Any]] | None = None
    only: Any = None

    def entries(self, name: str, config: Mapping[str, Any], num_layers: int) -> list[Any]:
        """The base's entries, explicit or implied; empty where there are none."""
        if config.get(name):
            return list(config[name])
        return [] if self.implied is None else self.implied(config, num_layers)

    @override
    def remapped(self, name: str, config: Mapping[str, Any], layers: LayerMap) -> dict[str, Any]:
        entries = self.entries(name, config, _base_layers(layers))
        if not entries:
            return {}
        inserted = self.inserted if self.inserted in entries else entries[0]
        attentions = (layer.attention for layer in layers)
        return {
            name: [
                entries[origin.base] if isinstance(origin, FromBase) else inserted
                for origin in attentions
            ]
        }

    @override
    def problems(self, name: str, config: Mapping[str, Any], num_layers: int) -> Iterator[str]:
        value = config.get(name)
        if value and (not isinstance(value, list) or len(value) != num_layers):
            found = f"{len(value)} entries" if isinstance(value, list) else repr(value)
            yield f"{name}: found {found}, expected a list of {num_layers}, one for each layer"
        elif self.only is not None:
            other = next((entry for entry in value or [] if entry != self.only), None)
            if other is not None:
                yield (
                    f"{name}: found {other!r}, expected {self.only!r}, the only kind that the "
                    "result's class has"
                )


@dataclass(frozen=True)
class LayerIndices(LayerField):
    """A list of the indices of layers whose MLP is of one kind.

    Attributes:
        inserted: whether inserted layers are of that kind.
        implied: further layers of that kind, from the configuration and the number of layers,
            listed or not: they are then written out.
    """

    inserted: bool
    implied: Callable[[Mapping[str, Any], int], list[int]] | None = None

    @override
    def remapped(self, name: str, config: Mapping[str, Any], layers: LayerMap) -> dict[str, Any]:
        if config.get(name) is None and self.implied is None and not self.inserted:
            return {}
        listed = set(config.get(name) or [])
        if self.implied is not None:
            listed |= set(self.implied(config, _base_layers(layers)))
        mlps = enumerate(layer.mlp for layer in layers)
        return {
            name: [
                index
                for index, origin in mlps
                if (origin.base in listed if isinstance(origin, FromBase) else self.inserted)
            ]
        }

    @override
    def problems(self, name: str, config: Mapping[str, Any], num_layers: int) -> Iterator[str]:
        value = config.get(name)
        if value is not None and (
            not isinstance(value, list) or any(i not in range(num_layers) for i in value)
        ):
            yield f"{name}: found {value!r}, expected a list of layers from 0 to {num_layers - 1}"


@dataclass(frozen=True)
class FirstLayers(LayerField):
    """How many layers from the first have attention of one kind.

    What is inserted right after them has it too, and where there are none of them nothing has.
    """

    @override
    def remapped(self, name: str, config: Mapping[str, Any], layers: LayerMap) -> dict[str, Any]:
        count = config.get(name)
        if not isinstance(count, int):
            return {}
        if not count:
            return {name: count}
        attentions = [layer.attention for layer in layers]
        boundary = next(
            (i for i, x in enumerate(attentions) if isinstance(x, FromBase) and x.base >= count),
            len(attentions),
        )
        return {name: count + sum(isinstance(x, FromSplice) for x in attentions[:boundary])}


def _base_layers(layers: LayerMap) -> int:
    return sum(isinstance(layer.attention, FromBase) for layer in layers)
