"""Why other families cannot be spliced, or not yet: one line each."""

from __future__ import annotations

from collections.abc import Mapping

_EXPERTS = (
    "its MLPs are mixtures of experts, and its class has no dense layer that could be inserted "
    "anywhere: an edit would need experts of its own and a router that always chooses them"
)
_SANDWICH = (
    "it normalises what each block writes as well, and its MLP can have no biases: thresholds and "
    "outputs need another construction"
)
_LAYER_NORM = (
    "its LayerNorm takes the mean as well as the scale; the construction for that exists, and is "
    "not fitted to this family's activation or biases yet"
)
_NO_BIAS = (
    "its block reads the stream once for attention and MLP, and has no bias that vLLM would load: "
    "it needs a layer before that injects the constant, and a family that has a bias for it"
)
_FIRST_DENSE = (
    "only its first first_k_dense_replace layers are dense, so that a layer after them would be a "
    "mixture of experts: an edit would need experts of its own and a router that always chooses "
    "them"
)
_HYBRID = (
    "its layers differ in kind, attention here and a recurrence there, by a pattern in its "
    "configuration: the inserted layer would have to be of a kind that the pattern can say at any "
    "place, and which MLP that kind has must be known"
)

REASONS: Mapping[str, str] = {
    "apertus": "its MLP is plain and its activation xIELU: it needs another construction",
    "cohere": _NO_BIAS,
    "cohere2": _NO_BIAS,
    "deepseek_v2": _FIRST_DENSE,
    "deepseek_v3": _FIRST_DENSE,
    "falcon": _LAYER_NORM,
    "gemma4": f"{_SANDWICH}; and each layer scales the whole stream",
    "gemma4_text": f"{_SANDWICH}; and each layer scales the whole stream",
    "gpt_oss": (
        f"{_EXPERTS}; and vLLM alternates attention kinds by the layer's index, whatever the "
        "configuration says, so that layers would have to be inserted in pairs"
    ),
    "granitemoehybrid": _HYBRID,
    "jamba": _HYBRID,
    "lfm2": _HYBRID,
    "llama4": (
        f"{_EXPERTS}; vLLM decides by interleave_moe_layer_step, and so by the layer's index, "
        "which layers are dense"
    ),
    "llama4_text": (
        f"{_EXPERTS}; vLLM decides by interleave_moe_layer_step, and so by the layer's index, "
        "which layers are dense"
    ),
    "mixtral": _EXPERTS,
    "nemotron": _LAYER_NORM,
    "nemotron_h": _HYBRID,
    "qwen2_moe": _EXPERTS,
    "qwen3_next": _HYBRID,
}
