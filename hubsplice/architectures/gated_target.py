"""What families have in common whose layers hold Llama's linear maps: a gated MLP among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from typing_extensions import override

from hubsplice.architectures.compiled_layer import CompiledLayer
from hubsplice.architectures.grouped_attention import GroupedAttention
from hubsplice.architectures.projection import Projection

MLP = frozenset({"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})

L = TypeVar("L", bound=CompiledLayer)


class GatedTarget(GroupedAttention[L], Generic[L]):
    """A family with grouped attention and a gated MLP of one activation."""

    activation_field: ClassVar[str] = "hidden_act"
    needed_activation: ClassVar[str] = "silu"

    @property
    def activation(self) -> Any:
        """What config.json names as the MLP's activation."""
        return self.decoder_config.get(self.activation_field, self.needed_activation)

    @property
    @override
    def projections(self) -> Mapping[str, Projection]:
        hidden, width = self.hidden_size, self.intermediate_size
        return {
            **self.attention_projections,
            "mlp.gate_proj": Projection(width, hidden),
            "mlp.up_proj": Projection(width, hidden),
            "mlp.down_proj": Projection(hidden, width),
        }

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.activation != self.needed_activation:
            yield (
                f"{self.activation_field}: found {self.activation!r}, expected "
                f"{self.needed_activation!r}: the construction is made of it"
            )
