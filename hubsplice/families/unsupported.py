"""Why other families cannot be spliced, or not yet: one line each, with what would be needed."""

from __future__ import annotations

from collections.abc import Mapping

_EXPERTS = (
    "its MLPs are mixtures of experts, and its class has no dense layer that could be inserted "
    "anywhere: an edit would need experts of its own and a router that always chooses them"
)
_FIRST_DENSE = (
    "servers tell dense layers from mixtures of experts by first_k_dense_replace, so that a layer "
    "further on is a mixture: an edit would need experts of its own and a router that always "
    "chooses them"
)
_DENSE_AMONG_EXPERTS = (
    "its class can have dense layers at any place, as Qwen3-MoE's can, but biases on q, k and v "
    "alone: it needs Qwen3's construction without the norms of queries and keys, which is not "
    "written for it yet"
)
_LAYER_NORM = (
    "its LayerNorm takes the mean as well as the scale, and its MLP is plain; the construction for "
    "that exists, for GPT-2 and GPT-NeoX, and is not fitted to this family's tensors and biases yet"
)
_LAYER_NORM_WITHOUT_BIAS = (
    "its LayerNorm takes the mean as well as the scale, and its MLP is gated and has no biases: it "
    "needs a construction that joins those for such norms and for such MLPs"
)
_SQUARED = (
    "its LayerNorm takes the mean as well as the scale, and the activation of its plain MLP is a "
    "squared ReLU: the construction for such norms is made of GELU, and needs squares in its place"
)
_NO_BIAS = (
    "its block reads the stream once for attention and MLP, and has no bias that vLLM would load: "
    "it needs a layer before that injects the constant, and a family that has a bias for it"
)
_POST_NORM_WITHOUT_BIAS = (
    "its blocks are normalised afterwards, as OLMo 2's, and its attention has no bias: what stands "
    "for a constant would be left to the stream itself, which no edit has been measured with"
)
_SANDWICH = (
    "its blocks are normalised before and after, as Gemma 2's, but by other names and norms, and "
    "with its gate and up in one tensor: the construction is not fitted to it yet"
)
_SCALED = (
    "its blocks are normalised before and after, as Gemma 3's, and each layer scales the whole "
    "stream besides: the construction is not fitted to that yet"
)
_STREAMS = (
    "it carries several streams that every layer predicts and corrects, and layers share keys and "
    "values by their index: an inserted layer would change all streams, and shift what is shared"
)
_RECURRENT = (
    "most of its layers are recurrent, and which are is listed layer by layer: a layer of full "
    "attention could be inserted anywhere, with Qwen3's construction, which is not fitted to its "
    "gated attention and to norms with weights around zero yet"
)
_HYBRID = (
    "its layers differ in kind, attention here and a recurrence there, by a pattern in its "
    "configuration: the inserted layer would have to be of a kind that the pattern can say at any "
    "place, and which MLP that kind has must be known"
)
_BY_STEP = (
    f"{_EXPERTS}; vLLM decides by interleave_moe_layer_step, and so by the layer's index, which "
    "layers are dense"
)

REASONS: Mapping[str, str] = {
    "apertus": (
        "its MLP is plain behind an RMSNorm, without biases, and its activation is xIELU: it needs "
        "a construction of its own"
    ),
    "bamba": _HYBRID,
    "cohere": _NO_BIAS,
    "cohere2": _NO_BIAS,
    "deepseek_v2": _FIRST_DENSE,
    "deepseek_v3": _FIRST_DENSE,
    "exaone4": _POST_NORM_WITHOUT_BIAS,
    "falcon": _LAYER_NORM,
    "falcon_h1": _HYBRID,
    "gemma3n": _STREAMS,
    "gemma3n_text": _STREAMS,
    "gemma4": _SCALED,
    "gemma4_text": _SCALED,
    "glm4": _SANDWICH,
    "glm4_moe": _FIRST_DENSE,
    "gpt_oss": (
        f"{_EXPERTS}; and vLLM alternates attention kinds by the layer's index, whatever the "
        "configuration says, so that layers would have to be inserted in pairs"
    ),
    "granitemoehybrid": _HYBRID,
    "jamba": _HYBRID,
    "lfm2": _HYBRID,
    "llama4": _BY_STEP,
    "llama4_text": _BY_STEP,
    "mixtral": _EXPERTS,
    "nemotron": _SQUARED,
    "nemotron_h": _HYBRID,
    "olmo": _LAYER_NORM_WITHOUT_BIAS,
    "olmo_hybrid": _HYBRID,
    "olmoe": _EXPERTS,
    "phi": _LAYER_NORM,
    "phimoe": _EXPERTS,
    "qwen2_moe": _DENSE_AMONG_EXPERTS,
    "qwen3_5": _RECURRENT,
    "qwen3_5_text": _RECURRENT,
    "qwen3_5_moe": _EXPERTS,
    "qwen3_5_moe_text": _EXPERTS,
    "qwen3_next": _HYBRID,
}
