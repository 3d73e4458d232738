"""Where the layers of a spliced checkpoint come from, block by block.

A decoder layer is an attention and an MLP, each with its norms, and the stream passes them in
turn. A layer that is inserted after a base layer stands there as it is. One that is inserted
between a base layer's attention and its MLP is torn apart: its MLP stands after the base's
attention, and its own attention before the base's MLP, so that two layers of the result hold what
were one layer of the base and the inserted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from hubsplice.intervention.place import Block, Place


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FromBase(_Part):
    """A layer of the base, or a block of it."""

    base: NonNegativeInt = Field(description="Its index there.")

    @property
    def attention(self) -> FromBase:
        """Where the attention comes from."""
        return self

    @property
    def mlp(self) -> FromBase:
        """Where the MLP comes from."""
        return self


class FromSplice(_Part):
    """An inserted layer, or a block of it."""

    splice: NonNegativeInt = Field(description="Its index in `layers`.")

    @property
    def attention(self) -> FromSplice:
        """Where the attention comes from."""
        return self

    @property
    def mlp(self) -> FromSplice:
        """Where the MLP comes from."""
        return self


class Joined(_Part):
    """A layer whose attention comes from one layer and whose MLP from another."""

    attention: FromBase | FromSplice
    mlp: FromBase | FromSplice


LayerMap = tuple[FromBase | FromSplice | Joined, ...]


def layer_map(num_layers: int, places: Sequence[Place]) -> LayerMap:
    """The layers of the result, in order.

    Args:
        num_layers: the base's number of layers.
        places: where each inserted layer is; at a place that is named more than once, they follow
            one another in the order of the list.
    """

    def inserted(place: Place) -> list[FromSplice]:
        return [FromSplice(splice=i) for i, at in enumerate(places) if at == place]

    result: list[FromBase | FromSplice | Joined] = [*inserted(Place(-1))]
    for layer in range(num_layers):
        base, between = FromBase(base=layer), inserted(Place(layer, Block.ATTENTION))
        if between:
            # Only the first is torn apart, around the others.
            torn, *whole = between
            result += [Joined(attention=base, mlp=torn), *whole, Joined(attention=torn, mlp=base)]
        else:
            result.append(base)
        result += inserted(Place(layer))
    return tuple(result)


def blocks(layers: LayerMap) -> Iterator[tuple[Block, FromBase | FromSplice]]:
    """Where every block comes from, in the order in which the stream passes them."""
    for layer in layers:
        yield Block.ATTENTION, layer.attention
        yield Block.MLP, layer.mlp


def inserted_indices(layers: LayerMap, block: Block = Block.MLP) -> tuple[int, ...]:
    """The index in the result of each inserted layer's block, by its index in `layers`."""
    found = {
        origin.splice: i // 2
        for i, (kind, origin) in enumerate(blocks(layers))
        if kind is block and isinstance(origin, FromSplice)
    }
    return tuple(index for _, index in sorted(found.items()))


def inserted_places(layers: LayerMap) -> tuple[Place, ...]:
    """Where each inserted MLP is; after layer -1 is before all layers."""
    found: dict[int, Place] = {}
    place = Place(-1)
    for block, origin in blocks(layers):
        if isinstance(origin, FromBase):
            place = Place(origin.base, block)
        elif block is Block.MLP:
            found[origin.splice] = place
    return tuple(place for _, place in sorted(found.items()))


def layer_map_problem(layers: LayerMap, inserted: int) -> str | None:
    """Why these can't be the layers of a base with `inserted` others, or None."""
    base = [(origin.base, kind) for kind, origin in blocks(layers) if isinstance(origin, FromBase)]
    found = [layer for layer, kind in base if kind is Block.MLP]
    if base != [(layer, kind) for layer in range(len(found)) for kind in Block]:
        return f"expected each base layer once and in order, found {found}"
    for kind in Block:
        spliced = [
            origin.splice
            for block, origin in blocks(layers)
            if block is kind and isinstance(origin, FromSplice)
        ]
        if sorted(spliced) != list(range(inserted)):
            return f"expected each of the {inserted} inserted layers once, found {spliced}"
    return None
