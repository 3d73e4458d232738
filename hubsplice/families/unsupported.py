"""Why other families cannot be spliced, or not yet: one line each, with what would be needed."""

from __future__ import annotations

from collections.abc import Mapping

_EXPERTS = (
    "its MLPs are mixtures of experts, and its class can't have a dense layer at any place: an "
    "edit would need experts of its own and a router that always chooses them"
)
_FIRST_DENSE = (
    "servers make the first layers dense, as many as first_k_dense_replace says, and all later "
    "layers mixtures of experts: an edit would need experts of its own and a router that always "
    "chooses them"
)
_DENSE_AMONG_EXPERTS = (
    "its class can have dense layers at any place, as Qwen3-MoE's can, but only q, k and v have "
    "biases: it needs Qwen3's construction without the norms of queries and keys, which is not "
    "written yet"
)
_LAYER_NORM = (
    "its LayerNorm removes the mean as well as the scale, and its MLP is plain: the construction "
    "for GPT-2 and GPT-NeoX would fit, but it is not adapted to this family's tensors and biases "
    "yet"
)
_LAYER_NORM_WITHOUT_BIAS = (
    "its LayerNorm removes the mean as well as the scale, and its MLP is gated and has no biases: "
    "there is a construction for such norms and one for such MLPs, but none for both together"
)
_SQUARED = (
    "its LayerNorm removes the mean as well as the scale, and its plain MLP has a squared ReLU: "
    "the construction for such norms is made of GELU, and would need squares instead"
)
_NO_BIAS = (
    "attention and MLP read the stream at the same point, and vLLM loads no bias of its blocks: it "
    "needs a layer before the inserted one that injects the constant, in a class that has a bias "
    "for it"
)
_POST_NORM_WITHOUT_BIAS = (
    "its norms stand after the blocks, as OLMo 2's do, and its attention has no bias: only the "
    "stream itself could supply a constant, and no edit has been measured that way"
)
_SANDWICH = (
    "its norms stand before and after the blocks, as Gemma 2's do, but their names and kinds "
    "differ, and gate and up are one tensor: the construction is not adapted to that yet"
)
_SCALED = (
    "its norms stand before and after the blocks, as Gemma 3's do, but each layer also scales the "
    "whole stream: the construction is not adapted to that yet"
)
_STREAMS = (
    "it carries several streams that every layer predicts and corrects, and layers share keys and "
    "values by their index: an inserted layer would change all streams and shift what is shared"
)
_RECURRENT = (
    "most of its layers are recurrent, and a list says which: a layer of full attention could be "
    "inserted anywhere with Qwen3's construction, which is not adapted to gated attention and to "
    "norms with weights around zero yet"
)
_HYBRID = (
    "some of its layers are attention and others are recurrent, by a pattern in its configuration: "
    "the pattern would have to allow an inserted layer at any place, and say which MLP it has"
)
_GEMMA = (
    "it is Gemma's first generation, whose gated MLP has GELU and no biases behind one norm: the "
    "constructions for such MLPs are made of SiLU, or need Gemma 2's norms behind the blocks; "
    "Gemma 2 and 3 can be spliced"
)
_MANY_STREAMS = (
    "its residual stream is several streams, which every layer mixes: no SAE's stream is one of "
    "them, and an inserted layer would mix them once more"
)
_SEES = (
    "its decoder is one part of a model that sees, and stays in that class, which gives it no "
    "biases; the models of the family that only read text become Llamas, which have some"
)
_SEES_ROPE = (
    "its decoder is one part of a model that sees, whose positions have three axes; Qwen2's "
    "construction makes a Llama of it, and that has one axis"
)
_CROSS = (
    "some of its layers attend to images alone, and the class counts them by their index: an "
    "inserted layer would have to be counted, too, and its class gives it no biases"
)
_RELU = (
    "its plain MLP has a ReLU behind a LayerNorm: the construction for such norms is made of GELU, "
    "and needs tensors and biases under this family's names"
)
_WINDOWED_WITHOUT_BIAS = (
    "its class has no biases, and Llama's, which has, has neither its windows nor its scaling of "
    "attention by position"
)
_LOCAL = f"{_LAYER_NORM}; half of its layers look back so far only, by a list of repeated patterns"
_NO_ATTENTION = "its layers are recurrent and have no MLP that an edit could be"
_BY_STEP = (
    f"{_EXPERTS}; vLLM decides by the layer's index and interleave_moe_layer_step which layers are "
    "dense"
)

REASONS: Mapping[str, str] = {
    "apertus": (
        "its MLP is plain, stands behind an RMSNorm, has no biases, and its activation is xIELU: "
        "it needs a construction of its own"
    ),
    "bamba": _HYBRID,
    "bloom": _LAYER_NORM,
    "codegen": _LAYER_NORM,
    "cohere": _NO_BIAS,
    "cohere2": _NO_BIAS,
    "deepseek_v2": _FIRST_DENSE,
    "deepseek_v3": _FIRST_DENSE,
    "deepseek_v32": _FIRST_DENSE,
    "deepseek_v4": _MANY_STREAMS,
    "exaone4": _POST_NORM_WITHOUT_BIAS,
    "falcon": _LAYER_NORM,
    "falcon_h1": _HYBRID,
    "falcon_mamba": _NO_ATTENTION,
    "gemma": _GEMMA,
    "gemma3n": _STREAMS,
    "gemma3n_text": _STREAMS,
    "gemma4": _SCALED,
    "gemma4_text": _SCALED,
    "gemma4_unified": _SCALED,
    "gemma4_unified_text": _SCALED,
    "glm4": _SANDWICH,
    "glm4_moe": _FIRST_DENSE,
    "glm5_next": _MANY_STREAMS,
    "glm_moe_dsa": _FIRST_DENSE,
    "gpt_bigcode": _LAYER_NORM,
    "gpt_neo": _LOCAL,
    "gpt_oss": (
        f"{_EXPERTS}; vLLM also alternates the kinds of attention by the layer's index, whatever "
        "the configuration says, so layers would have to be inserted in pairs"
    ),
    "gptj": _LAYER_NORM,
    "granitemoehybrid": _HYBRID,
    "jamba": _HYBRID,
    "kimi_k25": _FIRST_DENSE,
    "lfm2": _HYBRID,
    "llama4": _BY_STEP,
    "llama4_text": _BY_STEP,
    "llava": _SEES,
    "llava_next": _SEES,
    "mamba": _NO_ATTENTION,
    "mamba2": _NO_ATTENTION,
    "minimax_m2": _EXPERTS,
    "ministral": _WINDOWED_WITHOUT_BIAS,
    "ministral3": _WINDOWED_WITHOUT_BIAS,
    "mistral3": _SEES,
    "mistral4": _FIRST_DENSE,
    "mixtral": _EXPERTS,
    "mllama": _CROSS,
    "mllama_text_model": _CROSS,
    "nemotron": _SQUARED,
    "nemotron_h": _HYBRID,
    "olmo": _LAYER_NORM_WITHOUT_BIAS,
    "olmo_hybrid": _HYBRID,
    "olmoe": _EXPERTS,
    "opt": _RELU,
    "phi": _LAYER_NORM,
    "phimoe": _EXPERTS,
    "qwen2_5_vl": _SEES_ROPE,
    "qwen2_moe": _DENSE_AMONG_EXPERTS,
    "qwen2_vl": _SEES_ROPE,
    "qwen3_5": _RECURRENT,
    "qwen3_5_moe": _EXPERTS,
    "qwen3_5_moe_text": _EXPERTS,
    "qwen3_5_text": _RECURRENT,
    "qwen3_next": _HYBRID,
    "stablelm": _LAYER_NORM_WITHOUT_BIAS,
}
