"""Folders of Llama Scope's trainer (lm-saes, later llamascopium), in SAELens's terms.

The stream is scaled to a mean norm of √d first, by s = √d / (mean norm of the training text). What
a threshold is compared with is ‖d‖·p, d the feature's decoder row. Folders with `hyperparams.json`,
such as the published Llama Scope, have one threshold for all features. It was read off after s and
‖d‖ were folded in, and so it counts in the stream as it is; later folders have thresholds from
training, which count in the scaled stream. Activations stay those of the scaled stream, as SAELens
gives them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from hubsplice.errors import CheckpointError, UnsupportedError, blamed_on, quoted
from hubsplice.features.refusals import TRANSCODER
from hubsplice.features.trainer_folder import (
    InputScale,
    TrainerFolder,
    read_mapping,
    saelens_config,
    with_weights,
)
from hubsplice.files.plain import is_plain

_ARCHITECTURES = {"relu": "standard", "jumprelu": "jumprelu", "topk": "topk"}
# In the order in which the trainer looks for them.
_WEIGHTS = (
    "sae_weights.safetensors",
    "checkpoints/pruned.safetensors",
    "checkpoints/final.safetensors",
)
_PICKLES = ("sae_weights.pt", "checkpoints/pruned.pt", "checkpoints/final.pt")
_OTHERS = {
    "crosscoder": "a crosscoder reads several layers at once, and an inserted layer sees one",
    "clt": TRANSCODER,
    "molt": TRANSCODER,
    "lorsa": "it takes attention apart, and has no features of the residual stream to edit",
}


def llama_scope(folder: Path) -> TrainerFolder | None:
    """What a folder holds; None for one of another trainer.

    Raises:
        CheckpointError: a setting that is missing or means nothing, or weights that are missing or
            pickled.
        UnsupportedError: an SAE that no inserted layer can serve, with the reason.
    """
    for settings in ("hyperparams.json", "config.json"):
        raw = read_mapping(folder / settings)
        if raw is not None and "hook_point_in" in raw:
            return _read(folder, settings, raw)
    if (folder / "hyperparams.json").exists():
        raise CheckpointError(
            f"SAE {folder}: hyperparams.json has no hook_point_in; expected the settings of Llama "
            "Scope's trainer"
        )
    if folder.name == "checkpoints" and (folder.parent / "hyperparams.json").exists():
        raise CheckpointError(
            f"SAE {folder}: holds weights alone; the folder above it has the settings: name "
            f"{folder.parent}"
        )
    return None


def _read(folder: Path, settings: str, raw: Mapping[str, Any]) -> TrainerFolder:
    origin = f"SAE {folder}"
    _require_kind(raw, origin)
    d_in, factor = raw.get("d_model"), raw.get("expansion_factor")
    d_sae = raw.get("d_sae")
    if d_sae is None and isinstance(d_in, int) and isinstance(factor, int | float):
        d_sae = int(d_in * factor)
    architecture = _ARCHITECTURES[str(raw["act_fn"]).lower()]
    by_decoder = raw.get("sparsity_include_decoder_norm", True) is True
    config = saelens_config(
        architecture,
        d_in,
        d_sae,
        apply_b_dec_to_input=raw.get("apply_decoder_bias_to_pre_encoder", False) is True,
        metadata={"hook_name": raw["hook_point_in"], "model_name": _model(folder)},
    )
    if architecture == "topk":
        config |= {"k": raw.get("top_k"), "rescale_acts_by_decoder_norm": by_decoder}
    norm_of = raw.get("norm_activation", "dataset-wise")
    if norm_of == "token-wise":
        config["normalize_activations"] = "constant_norm_rescale"
    weights = next((name for name in _WEIGHTS if is_plain(folder / name)), _WEIGHTS[-1])
    pickle = next((name for name in _PICKLES if is_plain(folder / name)), "")
    if pickle and not is_plain(folder / weights):
        weights = f"{pickle.removesuffix('.pt')}.safetensors"
    found = with_weights(folder, config, settings, weights, pickle)
    threshold = raw.get("jump_relu_threshold") if settings == "hyperparams.json" else None
    scale = InputScale(
        _factor(folder / weights, raw, origin) if norm_of == "dataset-wise" else 1.0,
        None if threshold is None else _number(threshold, "jump_relu_threshold", origin),
        threshold_of_scaled=settings != "hyperparams.json",
        by_decoder=by_decoder,
    )
    zero = ("b_dec",) if raw.get("use_decoder_bias", True) is False else ()
    return replace(found, scale=scale, zero=zero)


def _require_kind(raw: Mapping[str, Any], origin: str) -> None:
    kind = raw.get("sae_type", "sae")
    if kind != "sae":
        reason = _OTHERS.get(str(kind), "only those of sae_type 'sae' can be spliced")
        raise UnsupportedError(f"{origin}: its sae_type is {quoted(kind)}: {reason}")
    if raw.get("hook_point_out", raw["hook_point_in"]) != raw["hook_point_in"]:
        raise UnsupportedError(
            f"{origin}: reads {raw['hook_point_in']} and writes {raw['hook_point_out']}: "
            f"{TRANSCODER}"
        )
    if raw.get("use_glu_encoder"):
        raise UnsupportedError(
            f"{origin}: its encoder is gated (use_glu_encoder), so that a feature is the product "
            "of two read-outs, and an inserted layer serves functions of one"
        )
    activation = raw.get("act_fn")
    if str(activation).lower() not in _ARCHITECTURES:
        raise UnsupportedError(
            f"{origin}: its act_fn is {quoted(activation)}; expected one of "
            f"{', '.join(_ARCHITECTURES)}"
        )
    if raw.get("norm_activation") == "batch-wise":
        raise UnsupportedError(
            f"{origin}: its norm_activation is batch-wise: what it gives for one token depends on "
            "all others of the batch"
        )
    known = ("dataset-wise", "token-wise", "inference")
    if raw.get("norm_activation", known[0]) not in known:
        raise UnsupportedError(
            f"{origin}: its norm_activation is {quoted(raw['norm_activation'])}; expected one of "
            f"{', '.join(known)}"
        )


def _model(folder: Path) -> str | None:
    named = (read_mapping(folder / "lm_config.json") or {}).get("model_name")
    return named if isinstance(named, str) else None


def _factor(weights: Path, raw: Mapping[str, Any], origin: str) -> float:
    """√d / the mean norm, which the settings have, or beside the weights a scalar tensor."""
    hook, name = str(raw["hook_point_in"]), "dataset_average_activation_norm"
    norms = raw.get(name)
    norm = norms.get("in", norms.get(hook)) if isinstance(norms, Mapping) else norms
    if norm is None:
        with (
            blamed_on(f"{weights}: cannot be read"),
            safe_open(weights, framework="pt") as file,
        ):
            stored = f"{name}.{hook}"
            norm = file.get_tensor(stored).item() if stored in set(file.keys()) else None
    width = raw.get("d_model")
    if not isinstance(width, int):
        # The size of the SAE is checked with all others.
        return 1.0
    found = _number(norm, name, origin)
    if found == 0.0:
        raise CheckpointError(f"{origin}: {name} is 0; expected the mean norm of a stream")
    return math.sqrt(width) / found


def _number(value: Any, name: str, origin: str) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not 0 <= value < math.inf:
        raise CheckpointError(
            f"{origin}: {name} is {quoted(value)}; expected a number that is not negative"
        )
    return float(value)
