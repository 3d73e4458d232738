"""How vLLM serves a carrier with adapters: the base and any number of edits side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hubsplice.checkpoint.companions import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST
from hubsplice.checkpoint.fingerprint import carrier_fingerprint
from hubsplice.checkpoint.manifest import Manifest, read_manifest
from hubsplice.errors import CheckpointError, RecipeError, UnsupportedError
from hubsplice.families.engines import EngineKey
from hubsplice.families.registry import model_classes
from hubsplice.files.strict_json import read_object
from hubsplice.serving.requirements import edited_layers

FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
"""What engines read of an adapter."""

# The ranks that vLLM 0.32 makes room for.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

# The wrapped modules of a layer, and those of them that vLLM packs into one.
_MODULES = (
    "self_attn.o_proj",
    "mlp.gate_up_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter as a server knows it.

    Attributes:
        name: what a request asks for.
        path: its folder.
        rank: of its changes.
        dtype: the precision that it was compiled for.
    """

    name: str
    path: str
    rank: int
    dtype: str


def find_adapter(folder: Path, carrier: Manifest, name: str = "") -> ServedAdapter:
    """An adapter for a carrier.

    Args:
        folder: the adapter's.
        carrier: the carrier's manifest.
        name: what requests ask for; the folder's name where it is empty.

    Raises:
        CheckpointError: it is no adapter, or one for another carrier.
    """
    path = str(folder)
    manifest = read_manifest(folder / MANIFEST)
    if manifest.carrier is None:
        raise CheckpointError(
            f"--adapters: {path}: it is no adapter; `hubsplice build --adapter` makes one"
        )
    if manifest.carrier.fingerprint != carrier_fingerprint(carrier):
        raise CheckpointError(
            f"--adapters: {path}: it was built for another carrier, or another revision of it: "
            f"{manifest.carrier.name}, with the fingerprint {manifest.carrier.fingerprint}; "
            f"expected {carrier_fingerprint(carrier)}. A server would load it without an error"
        )
    rank = read_object(folder / ADAPTER_CONFIG).get("r")
    if not isinstance(rank, int) or not 0 < rank <= _RANKS[-1]:
        raise CheckpointError(
            f"--adapters: {path}: rank: found {rank!r}, expected 1 to {_RANKS[-1]}, which is the "
            "most that vLLM serves"
        )
    return ServedAdapter(name or folder.resolve().name, path, rank, manifest.dtype)


def adapter_options(
    carrier: Manifest, adapters: Sequence[ServedAdapter], engine: EngineKey, most: int | None
) -> tuple[str, ...]:
    """The options that have vLLM serve a carrier with some adapters.

    LoRA is confined to the carrier's layers: by default vLLM runs its kernels in every layer, which
    costs three quarters of the throughput.

    Args:
        carrier: the carrier's manifest.
        adapters: one or more.
        engine: what serves them.
        most: the largest rank that the server has room for; None for as much as is needed.

    Raises:
        UnsupportedError: another engine, or adapters that one server can't serve together.
        RecipeError: two have one name, or one is of a higher rank than there is room for.
    """
    if engine is not EngineKey.VLLM:
        raise UnsupportedError(
            f"--adapters: hubsplice serves them with vLLM, not with {engine.value}; use --engine "
            "vllm, or merge the one that is wanted: hubsplice merge CARRIER ADAPTER"
        )
    names = [adapter.name for adapter in adapters]
    if len(set(names)) < len(names):
        raise RecipeError(f"--adapters: two have one name: {', '.join(names)}; give NAME=FOLDER")
    dtypes = {adapter.dtype for adapter in adapters}
    if len(dtypes) > 1:
        raise UnsupportedError(
            "--adapters: one server has one precision, and these were compiled for "
            f"{' and '.join(sorted(dtypes))}"
        )
    needed = max(adapters, key=lambda adapter: adapter.rank)
    room = next(rank for rank in _RANKS if rank >= needed.rank)
    if most is not None:
        if most not in _RANKS:
            raise RecipeError(
                f"--max-lora-rank: found {most}, expected one of {', '.join(map(str, _RANKS))}"
            )
        if needed.rank > most:
            raise RecipeError(
                f"--max-lora-rank: found {most}, and {needed.name} is of rank {needed.rank}; give "
                f"{room}"
            )
        room = most
    prefix = model_classes()[carrier.architectures.after].prefix
    modules = [f"{prefix}{index}.{m}" for index in edited_layers(carrier) for m in _MODULES]
    return (
        "--enable-lora",
        # One is never used. On a CPU, vLLM 0.32 gives a request without an adapter what lies in the
        # last place, where the batch has others with one; there must be nothing in it.
        *("--max-loras", str(len(adapters) + 1)),
        *("--max-lora-rank", str(room)),
        *("--lora-target-modules", *modules),
        *("--lora-modules", *(f"{adapter.name}={adapter.path}" for adapter in adapters)),
    )
