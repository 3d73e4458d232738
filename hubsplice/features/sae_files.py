"""The files of an SAE in a folder, looked at and not read."""

from __future__ import annotations

from pathlib import Path

from hubsplice.errors import CheckpointError
from hubsplice.features.sae_config import CONFIG_FILENAME, FoundSae
from hubsplice.features.trainers import trainer_folder
from hubsplice.files.plain import is_plain

WEIGHTS_FILENAME = "sae_weights.safetensors"
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")


def files_of(folder: Path) -> tuple[str, ...]:
    """The files of an SAE in a folder, by name, in alphabetical order."""
    trainer = trainer_folder(folder)
    return (CONFIG_FILENAME, WEIGHTS_FILENAME) if trainer is None else trainer.files


def require_weights(found: FoundSae) -> None:
    """Raise `CheckpointError` unless a local SAE's weights are there; of others nothing is said."""
    if found.source.path is not None and found.trainer is None:
        require_weights_in(found.source.path, found.config.origin)


def require_weights_in(path: Path, origin: str) -> None:
    """Raise `CheckpointError` unless a folder holds weights in a format that runs no code."""
    if is_plain(path / WEIGHTS_FILENAME):
        return
    pickles = sorted(p.name for p in path.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise CheckpointError(
            f"{origin}: {pickles[0]} is a pickle file, which may run code when it is read; "
            f"expected {WEIGHTS_FILENAME}"
        )
    raise CheckpointError(f"{origin}: holds no {WEIGHTS_FILENAME}")
