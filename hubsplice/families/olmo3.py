"""OLMo 3: OLMo 2, most of whose layers attend within a window.

Each kind of attention has its own rotary frequencies.
"""

from __future__ import annotations

from dataclasses import replace

from hubsplice.families.layer_fields import FULL_ATTENTION, SLIDING_ATTENTION, EveryNth, PerLayer
from hubsplice.families.olmo2 import OLMO2, OLMO2_CLASS
from hubsplice.families.registry import FAMILIES

OLMO3 = FAMILIES.add(
    "olmo3",
    replace(
        OLMO2,
        model_type="olmo3",
        title="OLMo 3",
        class_name="Olmo3ForCausalLM",
        becomes=replace(OLMO2_CLASS, name="Olmo3ForCausalLM", model_type="olmo3"),
        layer_fields={
            "layer_types": PerLayer(
                SLIDING_ATTENTION, EveryNth(4, nth=FULL_ATTENTION, others=SLIDING_ATTENTION)
            )
        },
    ),
)
