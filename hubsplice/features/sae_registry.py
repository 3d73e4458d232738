"""SAELens's registry of pretrained SAEs, read without importing SAELens."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hubsplice.errors import RecipeError, UnsupportedError, unknown_name
from hubsplice.features.hook_point import parse_hook_name
from hubsplice.features.refusals import (
    ATTENTION_HEADS,
    ATTENTION_OUTPUT,
    MLP_OUTPUT,
    TEMPORAL,
    TRANSCODER,
)

_REFUSED_LOADERS = {
    "gemma_2_transcoder": TRANSCODER,
    "mwhanna_transcoder": TRANSCODER,
    "mntss_clt_layer_transcoder": TRANSCODER,
    "temporal": TEMPORAL,
    "connor_rob_hook_z": ATTENTION_HEADS,
}

# Releases whose names say where their SAEs read, while the ids say nothing of it.
_REFUSED_RELEASES = {
    "-transcoders": TRANSCODER,
    "-pt-att": ATTENTION_HEADS,
    "-it-att": ATTENTION_HEADS,
    "-pt-mlp": MLP_OUTPUT,
    "-it-mlp": MLP_OUTPUT,
    "llama_scope_lxa_": ATTENTION_OUTPUT,
    "llama_scope_lxm_": MLP_OUTPUT,
    "llama_scope_lxtc_": TRANSCODER,
}

# SAELens reads these releases with torch.load; its restricted unpickler builds tensors only.
_PICKLED_LOADERS = {
    "connor_rob_hook_z",
    "deepseek_r1",
    "dictionary_learning_1",
    "goodfire",
    "qwen_scope",
}


@dataclass(frozen=True)
class RegistryEntry:
    """One SAE of the registry.

    Attributes:
        release: the release's name.
        id: the SAE's id within the release.
        repo_id: the Hub repository that holds it.
        path: where it lies in that repository.
        model: the model that it was trained on.
        loader: SAELens's name for the format of its files.
        l0: how many features are active at a token, or None where the registry doesn't say.
        variance_explained: the share of the variance that it explains, or None.
        scaling: what SAELens multiplies the encoder with, for an SAE whose inputs were scaled in
            training, or None.
        centred_weights: whether the registry says that the model's weights were centred.
        neuronpedia: what Neuronpedia calls it, or None where it does not have it.
    """

    release: str
    id: str
    repo_id: str
    path: str
    model: str
    loader: str
    l0: float | None = None
    variance_explained: float | None = None
    scaling: float | None = None
    centred_weights: bool = False
    neuronpedia: str | None = None

    @property
    def pickled(self) -> bool:
        """Whether the weights are published as a pickle file."""
        return self.loader in _PICKLED_LOADERS and not self.path.endswith(".safetensors")

    def require_supported(self) -> None:
        """Raise `UnsupportedError` with the reason where the names alone rule the SAE out."""
        reason = _REFUSED_LOADERS.get(self.loader)
        if reason is not None:
            raise UnsupportedError(f"sae: {self.release} {self.id} cannot be spliced: {reason}")
        place = next((why for part, why in _REFUSED_RELEASES.items() if part in self.release), None)
        if place is not None:
            raise UnsupportedError(f"sae: {self.release} {self.id} cannot be spliced: {place}")
        hook = re.match(r"blocks\.\d+\.(?:attn\.)?hook_(?:resid|attn|mlp)_[a-z]+|.*hook_z", self.id)
        if hook:
            parse_hook_name(hook[0]).require_supported()


def registry_entry(release: str, sae_id: str) -> RegistryEntry:
    """Look up one SAE.

    Raises:
        RecipeError: an unknown release or id, with the nearest valid one.
    """
    directory = _directory()
    if release not in directory:
        raise RecipeError(unknown_name("sae.release", release, directory))
    saes = {str(sae["id"]): sae for sae in directory[release]["saes"]}
    if sae_id not in saes:
        raise RecipeError(unknown_name(f"sae.id in release {release}", sae_id, saes))
    return _entry(release, sae_id, directory[release], saes[sae_id])


def neuronpedia_entry(name: str) -> RegistryEntry:
    """Look up the SAE that Neuronpedia calls `MODEL/SAE`.

    Raises:
        RecipeError: an unknown name, with the nearest SAE of that model, or the nearest model.
    """
    known = _by_neuronpedia()
    if name in known:
        release, sae = known[name]
        return _entry(release, str(sae["id"]), _directory()[release], sae)
    model, _, sae_name = name.partition("/")
    models = {other.partition("/")[0] for other in known}
    if model not in models:
        raise RecipeError(unknown_name("sae.neuronpedia: the model", model, models))
    of_model = [other.partition("/")[2] for other in known if other.startswith(f"{model}/")]
    raise RecipeError(unknown_name(f"sae.neuronpedia: the SAE of {model}", sae_name, of_model))


def registered_at(repo_id: str, path: str) -> RegistryEntry | None:
    """The SAE of the registry whose files in SAELens's format lie at a place on the Hub.

    None where the registry has none, or SAELens is not installed.
    """
    if not _installed():
        return None
    for release, entry in _directory().items():
        if entry["repo_id"] == repo_id and not entry.get("conversion_func"):
            for sae in entry["saes"]:
                if sae["path"] == path:
                    return _entry(release, str(sae["id"]), entry, sae)
    return None


def told_at(repo_id: str, path: str) -> tuple[str, str] | None:
    """Release and id of an SAE at a place on the Hub, in whatever format; of the nearest place
    in that repository where the place itself is unknown, and None for an unknown repository."""
    if not _installed():
        return None
    known = {
        str(sae["path"]): (release, str(sae["id"]))
        for release, entry in _directory().items()
        if entry["repo_id"] == repo_id
        for sae in entry["saes"]
    }
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.0)
    return known[near[0]] if near else None


def is_release(name: str) -> bool:
    """Whether the registry has a release of this name; False where SAELens is not installed."""
    return _installed() is not None and name in _directory()


def is_neuronpedia_model(name: str) -> bool:
    """Whether Neuronpedia calls a model of the registry so; False where SAELens is missing."""
    return _installed() is not None and any(n.startswith(f"{name}/") for n in _by_neuronpedia())


def _entry(
    release: str, sae_id: str, entry: Mapping[str, Any], sae: Mapping[str, object]
) -> RegistryEntry:
    overrides = entry.get("config_overrides") or {}
    loading = overrides.get("model_from_pretrained_kwargs") or {}
    return RegistryEntry(
        release,
        sae_id,
        str(entry["repo_id"]),
        str(sae["path"]),
        str(entry["model"]),
        str(entry.get("conversion_func") or "sae_lens"),
        _positive(sae.get("l0")),
        _positive(sae.get("variance_explained")),
        _positive(sae.get("norm_scaling_factor")),
        bool(loading.get("center_writing_weights")),
        name if isinstance(name := sae.get("neuronpedia"), str) else None,
    )


def _positive(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _installed() -> Path | None:
    # find_spec locates the package without running it, which would take seconds.
    spec = importlib.util.find_spec("sae_lens")
    places = None if spec is None else spec.submodule_search_locations
    return Path(places[0]) if places else None


@cache
def _by_neuronpedia() -> Mapping[str, tuple[str, Mapping[str, object]]]:
    """The release and the SAE by Neuronpedia's name."""
    return {
        str(sae["neuronpedia"]): (release, sae)
        for release, entry in _directory().items()
        for sae in entry["saes"]
        if sae.get("neuronpedia")
    }


@cache
def _directory() -> Mapping[str, Mapping[str, Any]]:
    package = _installed()
    if package is None:
        raise UnsupportedError("sae.release: SAELens is not installed; `pip install sae-lens`")
    with (package / "pretrained_saes.yaml").open(encoding="utf-8") as file:
        # The C loader takes a fifth of the time, and PyYAML can be built without it.
        loaded: Mapping[str, Mapping[str, Any]] = yaml.load(
            file,
            Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),  # noqa: S506
        )
    return loaded
