"""SAEs, loaded through SAELens."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubsplice.errors import CheckpointError, blamed_on
from hubsplice.features.centring import fold_centring, needs_folding
from hubsplice.features.hub_files import fetch
from hubsplice.features.references import SaeSource
from hubsplice.features.sae_config import FoundSae, SaeConfig, find_sae, parse_sae_config
from hubsplice.features.sae_files import WEIGHTS_FILENAME, require_weights_in
from hubsplice.features.sae_support import config_warnings, require_supported
from hubsplice.features.trainer_folder import TrainerFolder
from hubsplice.features.trainers import trainer_weights


@dataclass(frozen=True, eq=False)
class LoadedSae:
    """An SAE in memory.

    Attributes:
        config: its configuration, as it applies to these weights.
        module: SAELens's own object, in float32; it reads the stock model's stream, also where it
            was trained on one without its mean.
        sha256: of all weights by name, as SAELens uses them in float32.
        revision: the commit, for an SAE from a Hub repository.
        warnings: what a user should know about it.
    """

    config: SaeConfig
    module: Any
    sha256: str
    revision: str | None = None
    warnings: tuple[str, ...] = ()


def load_sae(source: SaeSource | FoundSae, *, device: str = "cpu") -> LoadedSae:
    """Load an SAE, and check that it can be spliced and that its weights are sound.

    Args:
        source: what names it, or what `find_sae` has found by that name.
        device: where its weights go.

    Raises:
        RecipeError: no such folder, repository, revision, release or id.
        UnsupportedError: an SAE that cannot be spliced, with the reason.
        CheckpointError: files that are missing, damaged or pickled; NaN or infinity in a weight.
    """
    found = source if isinstance(source, FoundSae) else find_sae(source)
    # The configuration refuses hopeless cases before any weight is fetched.
    require_supported(found.config)
    if found.source.path is not None and found.trainer is not None:
        trainer, weights = found.trainer, trainer_weights(found.trainer, found.source.path)
        return _loaded(lambda: _in_saelens(trainer, weights, device), found)
    if found.source.path is not None:
        return _load_folder(found.source.path, found, device)
    if found.source.repo_id is not None:
        prefix = f"{found.source.subfolder}/" if found.source.subfolder else ""
        file = fetch(found.source.repo_id, prefix + WEIGHTS_FILENAME, found.commit)
        return _load_folder(file.path.parent, found, device)
    return _load_release(found, device)


def wrap_sae(
    module: Any, origin: str, *, revision: str | None = None, notes: tuple[str, ...] = ()
) -> LoadedSae:
    """Check a SAELens object and describe it.

    Raises:
        UnsupportedError: an SAE that cannot be spliced, with the reason.
        CheckpointError: NaN or infinity in a weight.
    """
    config = parse_sae_config(module.cfg.to_dict(), origin)
    require_supported(config)
    weights: dict[str, Tensor] = module.state_dict()
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{origin}: weight {name!r} holds NaN or infinity")
    return LoadedSae(config, module, _digest(weights), revision, (*config_warnings(config), *notes))


def _load_folder(path: Path, found: FoundSae, device: str) -> LoadedSae:
    require_weights_in(path, found.config.origin)
    from sae_lens import SAE

    return _loaded(lambda: SAE.load_from_disk(path, device=device, dtype="float32"), found)


def _in_saelens(trainer: TrainerFolder, weights: Mapping[str, Tensor], device: str) -> Any:
    from sae_lens import SAE

    module: Any = SAE.from_dict({**trainer.config, "device": device})
    module.load_state_dict(weights)
    return module


def _load_release(found: FoundSae, device: str) -> LoadedSae:
    release, sae_id = found.source.release, found.source.id
    if found.notes and os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0") not in ("", "0"):
        raise CheckpointError(
            f"{found.config.origin}: published as a pickle file, and "
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD switches off the restricted unpickler; unset it"
        )
    from sae_lens import SAE

    return _loaded(
        lambda: SAE.from_pretrained(release, sae_id, device=device, dtype="float32"), found
    )


def _loaded(load: Callable[[], Any], found: FoundSae) -> LoadedSae:
    origin = found.config.origin
    with warnings.catch_warnings(), blamed_on(f"{origin}: SAELens cannot load it"):
        # What SAELens warns of is found again in the configuration, and returned as data.
        warnings.simplefilter("ignore")
        module = load()
        if found.scaling is not None:
            module.fold_activation_norm_scaling_factor(found.scaling)
    loaded = wrap_sae(module, origin, revision=found.commit, notes=found.notes)
    # SAELens keeps of a configuration what it computes with, and of the rest only what it knows
    # in this form: where an SAE comes from is as its files and the registry tell.
    told = found.config
    config = replace(
        loaded.config,
        hook=told.hook or loaded.config.hook,
        model_name=told.model_name or loaded.config.model_name,
        dataset=told.dataset or loaded.config.dataset,
        centred_weights=told.centred_weights,
        stated_l0=told.stated_l0,
        stated_variance=told.stated_variance,
        sliced=told.sliced,
    )
    if needs_folding(config):
        fold_centring(module)
    return replace(loaded, config=config, warnings=(*config_warnings(config), *found.notes))


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        values = tensor.detach().cpu().float()
        digest.update(f"{name} {list(values.shape)}\n".encode())
        digest.update(values.reshape(-1).numpy().data)
    return digest.hexdigest()
