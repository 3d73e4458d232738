"""Why other families cannot be spliced, or not yet: one line each."""

from __future__ import annotations

from collections.abc import Mapping

_EXPERTS = (
    "its MLPs are mixtures of experts, which an inserted layer would have to be as well, with a "
    "router"
)
_SANDWICH = (
    "it normalises what each block writes as well, and its MLP can have no biases: thresholds and "
    "outputs need another construction"
)
_QK_NORM = (
    "it normalises queries and keys, so it is no Llama, and its own class has no MLP biases; "
    "vLLM drops o_proj.bias"
)
_FUSED = (
    "its fused qkv and gate_up tensors would have to be split, and the base's tensors are never "
    "rewritten"
)
_LAYER_NORM = "its LayerNorm takes the mean as well as the scale, and needs a construction for it"
_POST_NORM = (
    "its MLP reads the stream as it is and is normalised afterwards, which takes the scale of an "
    "edit away: it needs another construction"
)
_NO_BIAS = "its block has no bias that vLLM would load, which the construction needs"

REASONS: Mapping[str, str] = {
    "apertus": "its MLP is plain and its activation xIELU: it needs another construction",
    "cohere": _NO_BIAS,
    "cohere2": _NO_BIAS,
    "deepseek_v2": _EXPERTS,
    "deepseek_v3": _EXPERTS,
    "falcon": _LAYER_NORM,
    "gemma4": f"{_SANDWICH}; and each layer scales the whole stream",
    "gemma4_text": f"{_SANDWICH}; and each layer scales the whole stream",
    "gpt_oss": f"{_EXPERTS}; and vLLM alternates attention kinds by the layer's index",
    "llama4": _EXPERTS,
    "llama4_text": _EXPERTS,
    "mixtral": _EXPERTS,
    "nemotron": _LAYER_NORM,
    "olmo2": _POST_NORM,
    "olmo3": _POST_NORM,
    "phi3": _FUSED,
    "qwen2_moe": _EXPERTS,
    "seed_oss": "it has all biases that are needed, and is not done yet",
}
