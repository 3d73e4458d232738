"""What an SAE's configuration says, read without loading its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubsplice.errors import CheckpointError, RecipeError
from hubsplice.features.hook_point import HookPoint, parse_hook_name
from hubsplice.features.hub_files import HubFile, fetch
from hubsplice.features.references import SaeSource
from hubsplice.features.sae_file import require_sae_types
from hubsplice.features.sae_registry import (
    RegistryEntry,
    neuronpedia_entry,
    registered_at,
    registry_entry,
    told_at,
)
from hubsplice.features.trainer_folder import TrainerFolder
from hubsplice.features.trainers import trainer_folder
from hubsplice.files.plain import read_plain

CONFIG_FILENAME = "cfg.json"
# The files by which trainers' folders are known.
_SETTINGS = (CONFIG_FILENAME, "hyperparams.json", "params.npz", "config.json")
_MOST_NAMED = 4

_OLD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_layer": "hook_layer",
    "activation_fn_str": "activation_fn",
}

_SCALED = "expected_average_only_in"

# What those who cut features out of an SAE note of it.
_SLICE_NOTES = ("sliced_from", "feature_indices")


@dataclass(frozen=True)
class SaeConfig:
    """An SAE's configuration, as far as splicing depends on it.

    Attributes:
        origin: where the SAE comes from, for messages.
        architecture: SAELens's name (`standard`, `jumprelu`, …).
        d_in: the width of the stream that it reads.
        d_sae: how many features it has.
        hook: where in the model it was trained, or None where its configuration doesn't say.
        model_name: the model that it was trained on, or None.
        normalize_activations: SAELens's name for the scaling of its input.
        apply_b_dec_to_input: whether the decoder bias is subtracted from the input.
        reshape_activations: `hook_z` where the input is reshaped from attention heads.
        k: how many features TopK keeps, or None.
        centred_weights: whether the model's weights were centred for the SAE's training, so that
            it reads the stream without its mean.
        dataset: the text that it was trained on, as it names it, or None.
        stated_l0: how many features are active at a token, as its files or the registry state it.
        stated_variance: the share of the variance that it explains, likewise.
        sliced: whether it holds some of an SAE's features only.
    """

    origin: str
    architecture: str
    d_in: int
    d_sae: int
    hook: HookPoint | None = None
    model_name: str | None = None
    normalize_activations: str = "none"
    apply_b_dec_to_input: bool = True
    reshape_activations: str = "none"
    k: int | None = None
    centred_weights: bool = False
    dataset: str | None = None
    stated_l0: float | None = None
    stated_variance: float | None = None
    sliced: bool = False

    @property
    def competes(self) -> bool:
        """Whether its features compete: where one is active depends on all others."""
        return self.architecture in ("topk", "abstopk")

    def require_feature(self, index: int) -> None:
        """Raise `RecipeError` with the valid range unless the SAE has this feature."""
        if not 0 <= index < self.d_sae:
            raise RecipeError(
                f"feature: {index} is out of range; {self.origin} has features 0 to "
                f"{self.d_sae - 1}"
            )


@dataclass(frozen=True)
class FoundSae:
    """An SAE whose configuration was read, and whose weights were not.

    Attributes:
        source: where it is; the release and the id for what Neuronpedia's name stands for.
        config: what its configuration says.
        commit: that of the Hub repository that the configuration came from, so that the weights
            come from the same; None for other sources.
        notes: what a user should know of its files.
        scaling: what the encoder has to be multiplied with once it is loaded, since its inputs
            were scaled in training and its files don't say by how much; None for nothing.
        neuronpedia: what Neuronpedia calls it, as far as the registry says.
        trainer: its folder in the form of its trainer; None for SAELens's own.
    """

    source: SaeSource
    config: SaeConfig
    commit: str | None = None
    notes: tuple[str, ...] = ()
    scaling: float | None = None
    neuronpedia: str | None = None
    trainer: TrainerFolder | None = None


def find_sae(source: SaeSource) -> FoundSae:
    """Read an SAE's configuration from a folder, the Hub or SAELens's registry.

    Raises:
        RecipeError: no such folder, repository, revision, release, id or name.
        UnsupportedError: a release whose SAEs cannot be spliced.
        CheckpointError: a configuration that is missing, damaged or cannot be fetched.
    """
    if source.path is not None:
        origin = folder_origin(source.path)
        trainer = trainer_folder(source.path)
        if trainer is not None:
            return FoundSae(source, parse_sae_config(trainer.config, origin), trainer=trainer)
        return FoundSae(source, _parse_file(source.path / CONFIG_FILENAME, origin))
    if source.repo_id is not None:
        name = f"{source.subfolder}/{CONFIG_FILENAME}" if source.subfolder else CONFIG_FILENAME
        file = _fetched(source, source.repo_id, name)
        config = _parse_file(file.path, repository_origin(source))
        known = registered_at(source.repo_id, source.subfolder or "")
        if known is None:
            return FoundSae(source, config, file.commit)
        scaling = known.scaling if config.normalize_activations == _SCALED else None
        return FoundSae(
            source,
            _with_registry(config, known),
            file.commit,
            scaling=scaling,
            neuronpedia=known.neuronpedia,
        )
    entry = _registered(source)
    source = SaeSource(release=entry.release, id=entry.id)
    entry.require_supported()
    config = _with_registry(_registry_config(entry.release, entry.id), entry)
    if not entry.pickled:
        return FoundSae(source, config, neuronpedia=entry.neuronpedia)
    pickled = (
        f"{config.origin}: published as a pickle file; SAELens reads it with torch's restricted "
        "unpickler, which builds tensors only."
    )
    return FoundSae(source, config, notes=(pickled,), neuronpedia=entry.neuronpedia)


def _fetched(source: SaeSource, repo_id: str, name: str) -> HubFile:
    """A file of SAELens's format; where there is none, the registry may know the SAE."""
    try:
        return fetch(repo_id, name, source.revision)
    except RecipeError as error:
        told = told_at(repo_id, source.subfolder or "")
        if told is None:
            raise
        release, sae_id = told
        raise RecipeError(
            f"{error}; SAELens's registry has SAEs of {repo_id}, such as "
            f"sae: {{release: {release}, id: {sae_id}}}"
        ) from None


def _registered(source: SaeSource) -> RegistryEntry:
    if source.neuronpedia is not None:
        return neuronpedia_entry(source.neuronpedia)
    assert source.release is not None
    assert source.id is not None
    return registry_entry(source.release, source.id)


def _with_registry(config: SaeConfig, entry: RegistryEntry) -> SaeConfig:
    """A configuration with what only the registry holds, as it is once the SAE is loaded."""
    folded = entry.scaling is not None and config.normalize_activations == _SCALED
    return replace(
        config,
        normalize_activations="none" if folded else config.normalize_activations,
        centred_weights=config.centred_weights or entry.centred_weights,
        stated_l0=entry.l0 or config.stated_l0,
        stated_variance=entry.variance_explained or config.stated_variance,
    )


def folder_origin(path: Path) -> str:
    """How messages call a local SAE."""
    return f"SAE {path}"


def repository_origin(source: SaeSource) -> str:
    """How messages call an SAE in a Hub repository."""
    return f"SAE {'/'.join(filter(None, (source.repo_id, source.subfolder)))}"


def release_origin(release: str, sae_id: str) -> str:
    """How messages call an SAE of the registry."""
    return f"SAE {release} {sae_id}"


def parse_sae_config(raw: Mapping[str, Any], origin: str) -> SaeConfig:
    """Read SAELens's configuration, in its present form or that before version 6.

    Raises:
        CheckpointError: a field that is missing or of the wrong type.
    """
    require_sae_types(raw, origin)
    config = {_OLD_NAMES.get(name, name): value for name, value in raw.items()}
    metadata = {**config, **(config.get("metadata") or {})}
    topk_size = (config.get("activation_fn_kwargs") or {}).get("k")
    old_topk = config.get("activation_fn") == "topk" and topk_size is not None
    architecture = "topk" if old_topk else config.get("architecture", "standard")
    normalize = config.get("normalize_activations") or "none"
    return SaeConfig(
        origin=origin,
        architecture=str(architecture),
        d_in=_positive(config, "d_in", origin),
        d_sae=_positive(config, "d_sae", origin),
        hook=_hook(metadata),
        model_name=metadata.get("model_name"),
        normalize_activations=_SCALED if normalize is True else str(normalize),
        apply_b_dec_to_input=bool(config.get("apply_b_dec_to_input", True)),
        reshape_activations=str(config.get("reshape_activations") or "none"),
        k=topk_size if old_topk else config.get("k"),
        centred_weights=bool(
            (metadata.get("model_from_pretrained_kwargs") or {}).get("center_writing_weights")
        ),
        dataset=dataset if isinstance(dataset := metadata.get("dataset_path"), str) else None,
        stated_l0=_number(metadata.get("l0")),
        stated_variance=_number(metadata.get("variance_explained")),
        sliced=any(metadata.get(note) is not None for note in _SLICE_NOTES),
    )


def _parse_file(path: Path, origin: str) -> SaeConfig:
    if not path.parent.is_dir():
        raise RecipeError(f"sae.path: {str(path.parent)!r} is not a folder")
    if not path.is_file():
        raise RecipeError(
            f"sae.path: {str(path.parent)!r} holds no {path.name}; expected a folder that "
            f"SAELens or another trainer saved{_saes_below(path.parent)}"
        )
    try:
        raw = json.loads(read_plain(path).decode())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} holds no mapping")
    return parse_sae_config(raw, origin)


def _saes_below(folder: Path) -> str:
    """What to say where the SAEs lie one folder further down."""
    found = sorted({path.parent.name for name in _SETTINGS for path in folder.glob(f"*/{name}")})
    if not found:
        return ""
    named = ", ".join(found[:_MOST_NAMED]) + (", …" if len(found) > _MOST_NAMED else "")
    return (
        f"; {len(found)} folders below it may be such: {named}"
        if len(found) > 1
        else (f"; {named} below it may be one")
    )


def _registry_config(release: str, sae_id: str) -> SaeConfig:
    # Importing SAELens takes seconds, and only its loaders know how each release is laid out.
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    origin = release_origin(release, sae_id)
    try:
        raw = load_sae_config_from_huggingface(release, sae_id)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{origin}: its configuration cannot be fetched: {error}") from error
    return parse_sae_config(raw, origin)


def _positive(config: Mapping[str, Any], name: str, origin: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(
            f"{origin}: {name} in its configuration is {value!r}; expected a positive integer"
        )
    return value


def _number(value: object) -> float | None:
    """A positive number, or None for anything else: what files state is no reason to fail."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value)
    return None


def _hook(metadata: Mapping[str, Any]) -> HookPoint | None:
    for key in ("hook_name", "hf_hook_name"):
        name = metadata.get(key)
        if name:
            return parse_hook_name(str(name).replace("{layer}", str(metadata.get("hook_layer"))))
    return None
