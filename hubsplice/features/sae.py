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

from hubsplice.errors import CheckpointError, RecipeError, blamed_on
from hubsplice.features.hub_files import fetch
from hubsplice.features.references import SaeSource
from hubsplice.features.sae_config import FoundSae, SaeConfig, find_sae, parse_sae_config
from hubsplice.features.sae_support import config_warnings, require_supported
from hubsplice.files.plain import is_plain

WEIGHTS_FILENAME = "sae_weights.safetensors"
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")


@dataclass(frozen=True, eq=False)
class LoadedSae:
    """An SAE in memory.

    Attributes:
        config: its configuration, as it applies to these weights.
        module: SAELens's own object, in float32.
        sha256: of all weights by name, as SAELens uses them in float32.
        revision: the commit, for an SAE from a Hub repository.
        warnings: what a user should know about it.
    """

    config: SaeConfig
    module: Any
    sha256: str
    revision: str | None = None
    warnings: tuple[str, ...] = ()

    def require_feature(self, index: int) -> None:
        """Raise `RecipeError` with the valid range unless the SAE has this feature."""
        if not 0 <= index < self.config.d_sae:
            raise RecipeError(
                f"feature: {index} is out of range; {self.config.origin} has features 0 to "
                f"{self.config.d_sae - 1}"
            )


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
    if found.source.path is not None:
        return _load_folder(found.source.path, found, device)
    if found.source.repo_id is not None:
        prefix = f"{found.source.subfolder}/" if found.source.subfolder else ""
        weights = fetch(found.source.repo_id, prefix + WEIGHTS_FILENAME, found.commit)
        return _load_folder(weights.path.parent, found, device)
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
    origin = found.config.origin
    if not is_plain(path / WEIGHTS_FILENAME):
        pickles = sorted(p.name for p in path.iterdir() if p.suffix in _PICKLES)
        if pickles:
            raise CheckpointError(
                f"{origin}: {pickles[0]} is a pickle file, which may run code when it is read; "
                f"expected {WEIGHTS_FILENAME}"
            )
        raise CheckpointError(f"{origin}: holds no {WEIGHTS_FILENAME}")
    from sae_lens import SAE

    return _loaded(lambda: SAE.load_from_disk(path, device=device, dtype="float32"), found)


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
    loaded = wrap_sae(module, origin, revision=found.commit, notes=found.notes)
    # SAELens keeps what it knows of a configuration; the registry's figures and notes it does not.
    told = found.config
    config = replace(
        loaded.config,
        stated_l0=told.stated_l0,
        stated_variance=told.stated_variance,
        sliced=told.sliced,
    )
    return replace(loaded, config=config)


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        values = tensor.detach().cpu().float()
        digest.update(f"{name} {list(values.shape)}\n".encode())
        digest.update(values.reshape(-1).numpy().data)
    return digest.hexdigest()
