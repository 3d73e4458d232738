"""Attention whose heads share keys and values in groups, under the names that Llama gave to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from hubsplice.architectures.base import Architecture
from hubsplice.architectures.compiled_layer import CompiledLayer
from hubsplice.architectures.projection import Projection

ATTENTION_INPUTS = frozenset({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
ATTENTION_OUTPUT = "self_attn.o_proj"
ATTENTION = ATTENTION_INPUTS | {ATTENTION_OUTPUT}

L = TypeVar("L", bound=CompiledLayer)


class GroupedAttention(Architecture[L], Generic[L]):
    """A family with such attention."""

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
        if name not in self.decoder_config:
            return self.absent_means.get(name)
        return None if self.decoder_config[name] is None else self.size(name)

    @property
    def attention_projections(self) -> Mapping[str, Projection]:
        """The linear maps of attention, by name in the layer."""
        hidden = self.hidden_size
        queries = self.size("num_attention_heads") * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        return {
            "self_attn.q_proj": Projection(queries, hidden),
            "self_attn.k_proj": Projection(keys, hidden),
            "self_attn.v_proj": Projection(keys, hidden),
            ATTENTION_OUTPUT: Projection(hidden, queries),
        }
