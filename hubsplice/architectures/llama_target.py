"""Families whose result is a stock `LlamaForCausalLM`, the class that can have every bias."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from hubsplice.architectures.base import Architecture
from hubsplice.architectures.prenorm import compile_prenorm
from hubsplice.architectures.spliced_layer import SplicedLayer
from hubsplice.calibration import SiteActivations
from hubsplice.checkpoint.layout import DTYPE_NAMES, Zeros
from hubsplice.checkpoint.safetensors_header import TensorEntry
from hubsplice.errors import CheckpointError, UnsupportedError
from hubsplice.intervention import Site

ATTENTION_INPUTS = frozenset({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
ATTENTION = ATTENTION_INPUTS | {"self_attn.o_proj"}
MLP = frozenset({"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})

_NORMS = ("input_layernorm", "post_attention_layernorm")
_FULL_ATTENTION = "full_attention"
# What says how the model was stored elsewhere, or asks for code.
_NEVER_WRITTEN = frozenset({"_name_or_path", "auto_map"})


class LlamaTarget(Architecture):
    """A pre-norm family with a gated SiLU MLP and Llama's tensor names."""

    class_name_after: ClassVar[str] = "LlamaForCausalLM"

    absent_means: ClassVar[Mapping[str, Any]] = {}
    """What the family's class takes for keys that config.json leaves out, where it is not what
    Llama's takes; written out in the result."""

    dropped: ClassVar[frozenset[str]] = frozenset()
    """Keys of the family that servers would act on, or that mean nothing, in a Llama."""

    @property
    @abstractmethod
    def biased(self) -> frozenset[str]:
        """The projections that have a bias in the base's class."""

    @property
    @override
    def norm_eps(self) -> float:
        return float(self.config.get("rms_norm_eps", 1e-6))

    @property
    @override
    def tied(self) -> bool:
        return bool(self.config.get("tie_word_embeddings", False))

    @property
    def head_dim(self) -> int:
        """The width of one attention head."""
        if self.config.get("head_dim") is not None:
            return self.size("head_dim")
        return self.hidden_size // self.size("num_attention_heads")

    @property
    def _num_key_value_heads(self) -> int:
        name = "num_key_value_heads"
        if self.config.get(name) is not None:
            return self.size(name)
        if name not in self.config and name in self.absent_means:
            return int(self.absent_means[name])
        return self.size("num_attention_heads")

    @property
    def _projections(self) -> dict[str, tuple[int, int]]:
        """The shapes of a layer's linear weights, by name in the layer."""
        hidden, width = self.hidden_size, self.intermediate_size
        queries = self.size("num_attention_heads") * self.head_dim
        keys = self._num_key_value_heads * self.head_dim
        return {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "mlp.gate_proj": (width, hidden),
            "mlp.up_proj": (width, hidden),
            "mlp.down_proj": (hidden, width),
        }

    @override
    def problems(self) -> Iterator[str]:
        config = self.config
        classes = config.get("architectures")
        if classes != [self.class_name_before]:
            yield (
                f"architectures: found {classes!r}, expected {[self.class_name_before]!r}: only "
                "causal language models can be spliced"
            )
        if config.get("hidden_act", "silu") != "silu":
            yield (
                f"hidden_act: found {config['hidden_act']!r}, expected 'silu': the construction "
                "is made of SiLU, and vLLM's Llama has no other"
            )
        heads = self.size("num_attention_heads")
        if self.hidden_size % heads:
            yield (
                f"num_attention_heads: found {heads}, expected a divisor of hidden_size "
                f"({self.hidden_size}), which transformers' Llama asks for"
            )
        for key in ("quantization_config", "compression_config"):
            if config.get(key):
                yield (
                    f"{key}: the base is quantised, and an inserted layer would be rounded with "
                    "it; splice the unquantised model and quantise the result"
                )
        layer_types = config.get("layer_types") or []
        other = next((kind for kind in layer_types if kind != _FULL_ATTENTION), None)
        if other is not None:
            yield f"layer_types: found {other!r}, expected {_FULL_ATTENTION!r}, all that Llama has"
        if config.get("per_layer_config"):
            yield "per_layer_config: layers that differ from each other are not supported"

    @override
    def spliced_config(self, after_layers: Sequence[int], dtype: torch.dtype) -> dict[str, Any]:
        removed = _NEVER_WRITTEN | self.dropped
        config = {key: value for key, value in self.config.items() if key not in removed}
        num_layers = len(self.layer_map(after_layers))
        config |= {key: value for key, value in self.absent_means.items() if key not in config}
        config |= {
            "model_type": "llama",
            "architectures": [self.class_name_after],
            "num_hidden_layers": num_layers,
            "attention_bias": True,
            "mlp_bias": True,
        }
        if self.class_name_before != self.class_name_after:
            config["head_dim"] = self.head_dim
        if config.get("layer_types"):
            config["layer_types"] = [_FULL_ATTENTION] * num_layers
        spellings = [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]
        return config | dict.fromkeys(spellings, str(dtype).removeprefix("torch."))

    @override
    def bias_tensors(
        self, base_tensors: Mapping[str, TensorEntry], after_layers: Sequence[int]
    ) -> dict[str, Zeros]:
        biases = {}
        for layer in range(self.num_layers):
            for projection, shape in self._projections.items():
                name = f"model.layers.{layer}.{projection}"
                dtype = _dtype_of(base_tensors, f"{name}.weight", shape)
                bias = f"{name}.bias"
                if bias not in base_tensors:
                    biases[self.rename(bias, after_layers)] = Zeros(shape[:1], dtype)
                elif projection not in self.biased:
                    raise CheckpointError(
                        f"tensor {bias!r}: {self.class_name_before} does not read it with this "
                        "config.json, and the result would; remove it from the base"
                    )
        return biases

    @override
    def inserted_tensors(
        self, index: int, layer: SplicedLayer, dtype: torch.dtype
    ) -> dict[str, Tensor | Zeros]:
        room = self.intermediate_size
        missing = room - layer.neurons
        if missing < 0:
            raise UnsupportedError(
                f"the edits of one inserted layer need {layer.neurons} neurons, and a layer of "
                f"this model has {room}: {-missing} too many; give fewer edits"
            )
        values = {
            "self_attn.o_proj.bias": layer.attention_bias,
            "mlp.gate_proj.weight": functional.pad(layer.gate_weight, (0, 0, 0, missing)),
            "mlp.gate_proj.bias": functional.pad(layer.gate_bias, (0, missing)),
            "mlp.up_proj.weight": functional.pad(layer.up_weight, (0, 0, 0, missing)),
            "mlp.up_proj.bias": functional.pad(layer.up_bias, (0, missing)),
            "mlp.down_proj.weight": functional.pad(layer.down_weight, (0, missing)),
            "mlp.down_proj.bias": layer.down_bias,
        }
        tensors: dict[str, Tensor | Zeros] = {
            f"{norm}.weight": torch.ones(self.hidden_size, dtype=dtype) for norm in _NORMS
        }
        for projection, shape in self._projections.items():
            tensors[f"{projection}.weight"] = Zeros(shape, dtype)
            tensors[f"{projection}.bias"] = Zeros(shape[:1], dtype)
        tensors |= {name: value.to(dtype) for name, value in values.items() if value.any()}
        return {f"model.layers.{index}.{name}": tensor for name, tensor in tensors.items()}

    @override
    def compile(self, site: Site, activations: SiteActivations, dtype: torch.dtype) -> SplicedLayer:
        return compile_prenorm(site, activations, dtype)


def _dtype_of(tensors: Mapping[str, TensorEntry], name: str, shape: tuple[int, ...]) -> torch.dtype:
    if name not in tensors:
        raise CheckpointError(f"tensor {name!r} is missing from the base's weights")
    entry = tensors[name]
    if tuple(entry.shape) != shape:
        raise CheckpointError(
            f"tensor {name!r}: found shape {list(entry.shape)}, expected {list(shape)} from "
            "config.json"
        )
    for dtype, stored in DTYPE_NAMES.items():
        if stored == entry.dtype:
            return dtype
    raise UnsupportedError(
        f"tensor {name!r}: found dtype {entry.dtype}, expected one of "
        f"{', '.join(DTYPE_NAMES.values())}"
    )
