"""OLMo 3: OLMo 2, most of whose layers attend within a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from hubsplice.architectures.layer_fields import (
    FULL_ATTENTION,
    SLIDING_ATTENTION,
    LayerField,
    PerLayer,
)
from hubsplice.architectures.olmo2 import Olmo2
from hubsplice.architectures.registry import ARCHITECTURES


def _layer_types(_config: Mapping[str, Any], num_layers: int) -> list[str]:
    return [SLIDING_ATTENTION if (layer + 1) % 4 else FULL_ATTENTION for layer in range(num_layers)]


@ARCHITECTURES.register("olmo3")
class Olmo3(Olmo2):
    """OLMo 3, each of whose kinds of attention has its own rotary frequencies."""

    class_name_before: ClassVar[str] = "Olmo3ForCausalLM"
    class_name_after: ClassVar[str] = "Olmo3ForCausalLM"
    layer_fields: ClassVar[Mapping[str, LayerField]] = {
        "layer_types": PerLayer(SLIDING_ATTENTION, _layer_types)
    }
