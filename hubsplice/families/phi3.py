"""Phi-3 and Phi-4, re-expressed as Llama: their own class has no biases.

It has q, k and v in one tensor, and gate and up in another. They lie there one after another, row
by row, so that the same bytes are Llama's tensors once a file's header names each by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from hubsplice.errors import CheckpointError
from hubsplice.families.family import Family, Named, Special
from hubsplice.families.known import Weights
from hubsplice.families.llama import LAYER_FIELDS, LLAMA_CLASS
from hubsplice.families.registry import FAMILIES
from hubsplice.files.safetensors_header import TensorEntry

if TYPE_CHECKING:
    from hubsplice.families.architecture import Architecture

_FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
_ROPE = ("rope_scaling", "rope_parameters")
_SWITCH = "original_max_position_embeddings"
_FACTOR = "partial_rotary_factor"
# Names that the kind of frequencies below has had.
_LONGROPE = ("longrope", "su", "yarn")


class _Phi3(Special):
    """Fused tensors, and rotary frequencies that change beyond some length."""

    @override
    def problems(self, base: Architecture) -> Iterator[str]:
        factor = _rope(base).get(_FACTOR, base.config.get(_FACTOR, 1.0))
        if factor != 1.0:
            yield (
                f"{_FACTOR}: found {factor!r}, expected 1: the model would be served as a Llama, "
                "which rotates every channel of a head; its own class has no biases, without "
                "which it needs another construction"
            )

    @override
    def split(self, base: Architecture, tensor: TensorEntry) -> tuple[TensorEntry, ...]:
        for fused, names in _FUSED.items():
            prefix, found, suffix = tensor.name.partition(f".{fused}.weight")
            if not found or suffix:
                continue
            sizes = [base.projections[name].outputs for name in names]
            expected = (sum(sizes), base.hidden_size)
            if tensor.shape != expected:
                raise CheckpointError(
                    f"tensor {tensor.name!r}: found shape {list(tensor.shape)}, expected "
                    f"{list(expected)} from config.json"
                )
            return tuple(
                tensor.rows(f"{prefix}.{name}.weight", sum(sizes[:i]), size)
                for i, (name, size) in enumerate(zip(names, sizes, strict=True))
            )
        return (tensor,)

    @override
    def joined(self, base: Architecture, tensors: Sequence[TensorEntry]) -> Sequence[TensorEntry]:
        found: list[TensorEntry] = []
        remaining = list(tensors)
        while remaining:
            fused = _fused_of(remaining[0].name)
            if fused is None:
                found.append(remaining.pop(0))
                continue
            name, parts = fused
            taken, remaining = remaining[: len(parts)], remaining[len(parts) :]
            if [tensor.name for tensor in taken] != parts:
                raise CheckpointError(
                    f"tensor {taken[0].name!r}: expected it as the first of "
                    f"{', '.join(parts)}, one after another"
                )
            rows = sum(tensor.shape[0] for tensor in taken)
            first, last = taken[0], taken[-1]
            shape = (rows, *first.shape[1:])
            found.append(TensorEntry(name, first.dtype, shape, first.start, last.end))
        return found

    @override
    def finish_config(self, base: Architecture, config: dict[str, Any]) -> None:
        switch = _switches_at(base)
        if switch is None:
            return
        config[_SWITCH] = switch
        # Llama's configuration knows no older names.
        for key in _ROPE:
            if config.get(key):
                rope = {k: v for k, v in config[key].items() if k not in ("type", _FACTOR)}
                config[key] = rope | {"rope_type": _LONGROPE[0], _SWITCH: switch}

    @override
    def notes(self, base: Architecture) -> tuple[str, ...]:
        switch = _switches_at(base)
        if switch is None:
            return ()
        return (
            f"beyond {switch} tokens the model uses other rotary frequencies: when a generation in "
            "transformers passes that length, the base's class computes its cache anew, and "
            "Llama's class does not",
        )


def _fused_of(name: str) -> tuple[str, list[str]] | None:
    """The fused tensor that a part belongs to, and all of its parts; None for other tensors."""
    for fused, parts in _FUSED.items():
        for part in parts:
            prefix, found, suffix = name.partition(f".{part}.weight")
            if found and not suffix:
                return f"{prefix}.{fused}.weight", [f"{prefix}.{p}.weight" for p in parts]
    return None


def _rope(base: Architecture) -> Mapping[str, Any]:
    return next((base.config[key] for key in _ROPE if base.config.get(key)), {})


def _switches_at(base: Architecture) -> int | None:
    """The length beyond which all rotary frequencies are others; None where they stay."""
    rope = _rope(base)
    if rope.get("rope_type", rope.get("type")) not in _LONGROPE:
        return None
    # The class writes its own field over the one among the frequencies.
    return int(base.config.get(_SWITCH, 4096))


PHI3 = FAMILIES.add(
    "phi3",
    Family(
        model_type="phi3",
        title="Phi-3, 3.5 and 4",
        class_name="Phi3ForCausalLM",
        becomes=LLAMA_CLASS,
        eps=Named("rms_norm_eps", 1e-5),
        activation=Named("hidden_act", "silu"),
        weights=Weights.TINY,
        switches=(),
        fixed_biases=(),
        absent_means={
            "vocab_size": 32064,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "eos_token_id": 32000,
            "pad_token_id": 32000,
        },
        layer_fields=LAYER_FIELDS,
        dropped=frozenset({"sliding_window", "layer_types", "resid_pdrop", "embd_pdrop", _FACTOR}),
        window=Named("sliding_window", None),
        special=_Phi3(),
    ),
)
