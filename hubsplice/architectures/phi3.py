"""Phi-3 and Phi-4, re-expressed as Llama: their own class has no biases.

It has q, k and v in one tensor, and gate and up in another. They lie there one after another, row
by row, so that the same bytes are Llama's tensors once a file's header names each by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from typing_extensions import override

from hubsplice.architectures.base import CONFIG_FIELD
from hubsplice.architectures.llama_target import LlamaTarget
from hubsplice.architectures.registry import ARCHITECTURES
from hubsplice.architectures.spliced_layer import SplicedLayer
from hubsplice.calibration import SiteActivations
from hubsplice.checkpoint.layer_map import LayerMap
from hubsplice.checkpoint.safetensors_header import TensorEntry
from hubsplice.errors import CheckpointError
from hubsplice.intervention import Site

_FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
_ROPE = ("rope_scaling", "rope_parameters")
_SWITCH = "original_max_position_embeddings"
_FACTOR = "partial_rotary_factor"
# Names that the kind of frequencies below has had.
_LONGROPE = ("longrope", "su", "yarn")


@ARCHITECTURES.register("phi3")
class Phi3(LlamaTarget):
    """Phi-3 without a sliding window that matters, every channel of whose heads is rotated."""

    class_name_before: ClassVar[str] = "Phi3ForCausalLM"
    dropped: ClassVar[frozenset[str]] = frozenset(
        {"sliding_window", "layer_types", "resid_pdrop", "embd_pdrop", _FACTOR}
    )
    absent_means: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 32064,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "eos_token_id": 32000,
        "pad_token_id": 32000,
    }

    @property
    @override
    def biased_before(self) -> frozenset[str]:
        return frozenset()

    @property
    @override
    def norm_eps(self) -> float:
        return float(self.config.get("rms_norm_eps", self.absent_means["rms_norm_eps"]))

    @override
    def split(self, tensor: TensorEntry) -> tuple[TensorEntry, ...]:
        for fused, names in _FUSED.items():
            prefix, found, suffix = tensor.name.partition(f".{fused}.weight")
            if not found or suffix:
                continue
            sizes = [self.projections[name].outputs for name in names]
            expected = (sum(sizes), self.hidden_size)
            if tensor.shape != expected:
                raise CheckpointError(
                    f"tensor {tensor.name!r}: found shape {list(tensor.shape)}, expected "
                    f"{list(expected)} from {CONFIG_FIELD}"
                )
            return tuple(
                tensor.rows(f"{prefix}.{name}.weight", sum(sizes[:i]), size)
                for i, (name, size) in enumerate(zip(names, sizes, strict=True))
            )
        return (tensor,)

    @property
    def _rope(self) -> Mapping[str, Any]:
        return next((self.config[key] for key in _ROPE if self.config.get(key)), {})

    @property
    def _switches_at(self) -> int | None:
        """The length beyond which all rotary frequencies are others; None where they stay."""
        if self._rope.get("rope_type", self._rope.get("type")) not in _LONGROPE:
            return None
        # The class writes its own field over the one among the frequencies.
        return int(self.config.get(_SWITCH, 4096))

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from self.window_problems()
        factor = self._rope.get(_FACTOR, self.config.get(_FACTOR, 1.0))
        if factor != 1.0:
            yield (
                f"{_FACTOR}: found {factor!r}, expected 1: the model would be served as a Llama, "
                "which rotates every channel of a head; its own class has no biases, without "
                "which it needs another construction"
            )

    @override
    def spliced_config(self, layers: LayerMap, dtype: torch.dtype) -> dict[str, Any]:
        config = super().spliced_config(layers, dtype)
        if self._switches_at is not None:
            config[_SWITCH] = self._switches_at
            # Llama's configuration knows no older names.
            for key in _ROPE:
                if config.get(key):
                    rope = {k: v for k, v in config[key].items() if k not in ("type", _FACTOR)}
                    config[key] = rope | {"rope_type": _LONGROPE[0], _SWITCH: self._switches_at}
        return config

    @override
    def construct(
        self, site: Site, activations: SiteActivations, dtype: torch.dtype
    ) -> SplicedLayer:
        layer = super().construct(site, activations, dtype)
        if self._switches_at is None:
            return layer
        note = (
            f"beyond {self._switches_at} tokens the model's rotary frequencies are others: where "
            "a generation in transformers passes that length, the base's class computes its "
            "cache anew, and Llama's does not"
        )
        return replace(layer, approximations=(*layer.approximations, note))
