"""Gemma 3: the text models, and the text decoders of those that see.

Each kind of attention has its own rotary frequencies, so that a layer that changed its kind would
read positions wrongly, too.
"""

from __future__ import annotations

import datetime
from dataclasses import replace

from hubsplice.families.blocks import SANDWICH, head_norms
from hubsplice.families.engines import READ, RUN, EngineKey, Evidence, Support
from hubsplice.families.family import Family, ModelClass, Named
from hubsplice.families.gemma2 import ACTIVATION, BIAS_SWITCHES, DEFAULTS, REFUSED
from hubsplice.families.known import GGUF, Measured, Weights
from hubsplice.families.layer_fields import FULL_ATTENTION, SLIDING_ATTENTION, EveryNth, PerLayer
from hubsplice.families.registry import FAMILIES

GEMMA3_CLASS = ModelClass(
    name="Gemma3ForCausalLM",
    model_type="gemma3_text",
    block=SANDWICH.with_norms(*head_norms(0.0)),
    switches=BIAS_SWITCHES,
    engines={EngineKey.VLLM: RUN, EngineKey.TRANSFORMERS: RUN, EngineKey.SGLANG: READ},
)

GEMMA3_VISION_CLASS = ModelClass(
    name="Gemma3ForConditionalGeneration",
    model_type="gemma3",
    block=GEMMA3_CLASS.block,
    prefixes=("model.language_model.layers.", "language_model.model.layers."),
    switches=BIAS_SWITCHES,
    engines={
        EngineKey.VLLM: Support(
            Evidence.READ,
            note="its decoder is that of Gemma3ForCausalLM; not run, since vLLM imports the class "
            "with its image processor, which needs torchvision, and PyPI has no build of that for "
            "the torch of vLLM's build for CPUs",
        ),
        EngineKey.TRANSFORMERS: RUN,
    },
    vllm_prefix="language_model.model.layers.",
)

# The field as released, which transformers acts on, and as it stores it since layer_types exists.
_PATTERN = ("sliding_window_pattern", "_sliding_window_pattern")
_LAYER_TYPES = EveryNth(6, nth=FULL_ATTENTION, others=SLIDING_ATTENTION, field=_PATTERN[0])

GEMMA3_TEXT = FAMILIES.add(
    "gemma3_text",
    Family(
        model_type="gemma3_text",
        title="Gemma 3",
        class_name="Gemma3ForCausalLM",
        becomes=GEMMA3_CLASS,
        eps=Named("rms_norm_eps", 1e-6),
        activation=ACTIVATION,
        weights=Weights.REAL,
        measured=(Measured(f"Gemma-3-270m, {GGUF}", "gemma.md", datetime.date(2026, 11, 26)),),
        tied=True,
        defaults=DEFAULTS,
        layer_fields={"layer_types": PerLayer(SLIDING_ATTENTION, _LAYER_TYPES)},
        # With layer_types written out they mean nothing, and would be wrong.
        dropped=frozenset(_PATTERN),
        refused=REFUSED,
    ),
)

GEMMA3 = FAMILIES.add(
    "gemma3",
    replace(
        GEMMA3_TEXT,
        model_type="gemma3",
        title="Gemma 3 with vision",
        class_name="Gemma3ForConditionalGeneration",
        becomes=GEMMA3_VISION_CLASS,
        decoder_key="text_config",
    ),
)
