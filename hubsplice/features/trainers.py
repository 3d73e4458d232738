"""Folders of SAEs that other programs than SAELens wrote, in SAELens's terms.

Each trainer is one function: by which file its folders are known, what their configuration means,
and what its tensors are called. Pickles are never read.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from hubsplice.errors import CheckpointError, UnsupportedError, blamed_on, quoted
from hubsplice.features.llama_scope import llama_scope
from hubsplice.features.refusals import TRANSCODER
from hubsplice.features.trainer_folder import (
    InputScale,
    TrainerFolder,
    read_mapping,
    saelens_config,
    with_weights,
)
from hubsplice.files.plain import is_plain

_LAYER = re.compile(r"(?:^|[._])(?:layers|h|blocks)[._](?P<layer>[0-9]+)$")


def trainer_folder(folder: Path) -> TrainerFolder | None:
    """What a folder holds; None for one that no trainer known here wrote.

    Raises:
        CheckpointError: a configuration that is damaged, or weights that are missing or pickled.
        UnsupportedError: an SAE that no inserted layer can serve, with the reason.
    """
    for reads in (_sparsify, _dictionary_learning, _gemma_scope, llama_scope):
        found = reads(folder)
        if found is not None:
            return found
    return None


def trainer_weights(found: TrainerFolder, folder: Path) -> dict[str, Tensor]:
    """The weights by SAELens's names, float32.

    Raises:
        CheckpointError: a tensor is missing, or the file can't be read.
    """
    path = folder / found.weights
    with blamed_on(f"{path}: cannot be read"):
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        else:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    named = {
        name: tensor.float()
        for name, (sources, transposed) in _NAMES.items()
        for source in sources
        if source in tensors
        for tensor in [tensors[source].T if source in transposed else tensors[source]]
    }
    sizes = found.config
    shapes = {
        "W_enc": (sizes["d_in"], sizes["d_sae"]),
        "W_dec": (sizes["d_sae"], sizes["d_in"]),
        "b_dec": (sizes["d_in"],),
    }
    wanted = ["W_enc", "W_dec", "b_dec", *_BIASES[sizes["architecture"]]]
    named = _untold(found, tensors) | named
    for name in wanted:
        shape = shapes.get(name, (sizes["d_sae"],))
        if name in found.zero:
            named.setdefault(name, torch.zeros(shape))
        if name == "threshold" and name in named and named[name].ndim == 0:
            named[name] = named[name].expand(shape)
        if name not in named or tuple(named[name].shape) != shape:
            what = "missing" if name not in named else f"of shape {list(named[name].shape)}"
            raise CheckpointError(
                f"{path}: {' or '.join(_NAMES[name][0])} is {what}; expected shape {list(shape)}"
            )
    return _folded({name: named[name].contiguous() for name in wanted}, found.scale)


def _untold(found: TrainerFolder, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Thresholds that stand in the configuration, or as logarithms."""
    meant = {}
    if found.scale.threshold is not None:
        meant["threshold"] = torch.tensor(found.scale.threshold)
    for name in ("log_jumprelu_threshold", "activation_function.log_jumprelu_threshold"):
        if name in tensors:
            meant["threshold"] = tensors[name].float().exp()
    return meant


def _folded(weights: dict[str, Tensor], scale: InputScale) -> dict[str, Tensor]:
    """The weights of an SAE that reads the stream as it is.

    Activations stay those of the scaled stream, as `fold_activation_norm_scaling_factor` of
    SAELens has them.
    """
    if "threshold" in weights:
        if not scale.threshold_of_scaled:
            weights["threshold"] = weights["threshold"] * scale.factor
        if scale.by_decoder:
            # ‖d‖·p > θ, which a row of zeros never passes.
            norm = weights["W_dec"].norm(dim=1)
            never = torch.finfo(norm.dtype).max
            weights["threshold"] = (weights["threshold"] / norm).where(norm > 0, never)
    weights["W_enc"] = weights["W_enc"] * scale.factor
    for name in ("W_dec", "b_dec"):
        weights[name] = weights[name] / scale.factor
    return weights


# By SAELens's name: the names that trainers give it, and those of them that lie the other way.
_NAMES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "W_enc": (("encoder.weight", "W_enc", "w_enc", "W_E"), ("encoder.weight",)),
    "W_dec": (("decoder.weight", "W_dec", "w_dec", "W_D"), ("decoder.weight",)),
    "b_enc": (("encoder.bias", "b_enc", "b_E"), ()),
    "b_dec": (("b_dec", "bias", "decoder_bias", "decoder.bias", "b_D"), ()),
    "b_gate": (("gate_bias",), ()),
    "b_mag": (("mag_bias",), ()),
    "r_mag": (("r_mag",), ()),
    "threshold": (("threshold",), ()),
}
_BIASES = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}


def _sparsify(folder: Path) -> TrainerFolder | None:
    """EleutherAI's sparsify: always TopK, of which `cfg.json` has the k."""
    raw = read_mapping(folder / "cfg.json")
    if raw is None or "d_sae" in raw or not {"expansion_factor", "num_latents"} & {*raw}:
        return None
    origin = f"SAE {folder}"
    if raw.get("transcode") or raw.get("skip_connection"):
        raise UnsupportedError(f"{origin}: cannot be spliced: {TRANSCODER}")
    if raw.get("activation", "topk") != "topk" or raw.get("signed"):
        kind = "signed" if raw.get("signed") else raw["activation"]
        raise UnsupportedError(
            f"{origin}: its activation is {quoted(kind)}, which picks features by groups or by "
            "magnitude; sparsify's topk works"
        )
    d_in, factor = raw.get("d_in"), raw.get("expansion_factor")
    d_sae = raw.get("num_latents")
    if not d_sae and isinstance(d_in, int) and isinstance(factor, int):
        d_sae = d_in * factor
    # The folder is named after the module whose output it reads.
    layer = _LAYER.search(folder.name)
    metadata = {} if layer is None else {"hook_name": f"blocks.{layer['layer']}.hook_resid_post"}
    metadata |= _sparsify_training(folder.parent / "config.json")
    config = saelens_config(
        "topk", d_in, d_sae, k=raw.get("k"), apply_b_dec_to_input=True, metadata=metadata
    )
    return with_weights(folder, config, "cfg.json", "sae.safetensors")


def _sparsify_training(path: Path) -> dict[str, Any]:
    raw = read_mapping(path) or {}
    named = {"model_name": raw.get("model"), "dataset_path": raw.get("dataset")}
    return {name: value for name, value in named.items() if isinstance(value, str)}


_KINDS = {
    "AutoEncoder": ("standard", True),
    "AutoEncoderNew": ("standard", False),
    "GatedAutoEncoder": ("gated", True),
    "JumpReluAutoEncoder": ("jumprelu", False),
    "AutoEncoderTopK": ("topk", True),
    "BatchTopKSAE": ("jumprelu", True),
    "MatryoshkaBatchTopKSAE": ("jumprelu", True),
}
"""dictionary_learning's classes: SAELens's architecture, and whether b_dec is subtracted first."""


_MODULES = {"resid_post": "hook_resid_post", "mlp": "hook_mlp_out", "att": "hook_attn_out"}
"""What the name of a module holds, and TransformerLens's name for the place."""


def _dictionary_learning(folder: Path) -> TrainerFolder | None:
    raw = read_mapping(folder / "config.json")
    trainer = None if raw is None else raw.get("trainer")
    if not isinstance(trainer, dict) or "dict_class" not in trainer:
        return None
    origin = f"SAE {folder}"
    kind = _KINDS.get(str(trainer["dict_class"]))
    if kind is None:
        raise UnsupportedError(
            f"{origin}: its class is {quoted(trainer['dict_class'])}; expected one of "
            f"{', '.join(_KINDS)}"
        )
    architecture, subtracts = kind
    metadata: dict[str, Any] = {"model_name": trainer.get("lm_name")}
    # A folder that does not say where its SAE reads leaves that to the recipe.
    module, layer = str(trainer.get("submodule_name") or ""), trainer.get("layer")
    place = next((hook for part, hook in _MODULES.items() if part in module), None)
    if place is not None:
        metadata["hook_name"] = f"blocks.{layer}.{place}"
    config = saelens_config(
        architecture,
        trainer.get("activation_dim"),
        trainer.get("dict_size"),
        apply_b_dec_to_input=subtracts,
        metadata=metadata,
        **({"k": trainer.get("k")} if architecture == "topk" else {}),
    )
    return with_weights(folder, config, "config.json", "ae.safetensors", "ae.pt")


def _gemma_scope(folder: Path) -> TrainerFolder | None:
    """Gemma Scope's `params.npz`, which says neither model nor layer: the recipe does."""
    path = folder / "params.npz"
    if not is_plain(path):
        return None
    with (
        blamed_on(f"{path}: cannot be read"),
        zipfile.ZipFile(path) as archive,
        archive.open("W_enc.npy") as file,
    ):
        first = np.lib.format.read_magic(file) == (1, 0)
        headers = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
        shape = headers[0 if first else 1](file)[0]
    if len(shape) != 2:
        raise CheckpointError(f"{path}: W_enc has shape {list(shape)}; expected two dimensions")
    config = saelens_config("jumprelu", *map(int, shape), apply_b_dec_to_input=False, metadata={})
    return TrainerFolder(config, ("params.npz",), "params.npz")
