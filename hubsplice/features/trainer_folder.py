"""What a folder of another trainer comes down to, and how such folders are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubsplice.errors import CheckpointError
from hubsplice.files.plain import is_plain, read_plain


@dataclass(frozen=True)
class InputScale:
    """What a trainer does to the stream before it encodes it, to be folded into the weights.

    Attributes:
        factor: what the stream is multiplied with.
        threshold: of all features, where the configuration has it and not the weights.
        threshold_of_scaled: whether thresholds count in activations of the scaled stream, rather
            than in those of the stream as it is.
        by_decoder: whether what a threshold is compared with is first multiplied by the norm of
            the feature's decoder row.
    """

    factor: float = 1.0
    threshold: float | None = None
    threshold_of_scaled: bool = True
    by_decoder: bool = False


@dataclass(frozen=True)
class TrainerFolder:
    """An SAE in the form of its trainer.

    Attributes:
        config: what SAELens's cfg.json would say of it.
        files: all that matter, by name in the folder, in alphabetical order.
        weights: the file of `files` that holds the weights.
        scale: what is still to be folded into the weights.
        zero: weights that the trainer leaves out, since they are zero; by SAELens's names.
    """

    config: Mapping[str, Any]
    files: tuple[str, ...]
    weights: str
    scale: InputScale = InputScale()
    zero: tuple[str, ...] = ()


def saelens_config(architecture: str, d_in: Any, d_sae: Any, **more: Any) -> dict[str, Any]:
    """What SAELens's cfg.json would say of an SAE of some kind and size."""
    return {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "normalize_activations": "none",
        "reshape_activations": "none",
        **more,
    }


def with_weights(
    folder: Path,
    config: dict[str, Any],
    settings: str,
    weights: str,
    pickle: str = "",
) -> TrainerFolder:
    """A folder whose weights are there.

    Raises:
        CheckpointError: there are none, or only a pickle of them.
    """
    if not is_plain(folder / weights):
        if pickle and is_plain(folder / pickle):
            raise CheckpointError(
                f"SAE {folder}: {pickle} is a pickle file, which may run code when it is read. "
                "This reads its tensors alone, and writes them as safetensors:\n"
                f"    {_conversion(folder, pickle, weights)}"
            )
        raise CheckpointError(f"SAE {folder}: holds no {weights}")
    return TrainerFolder(config, tuple(sorted((settings, weights))), weights)


def read_mapping(path: Path) -> dict[str, Any] | None:
    """A JSON file's mapping; None where there is no such file, or where it holds none."""
    if not is_plain(path):
        return None
    try:
        raw = json.loads(read_plain(path).decode())
    except (OSError, ValueError, RecursionError):
        # Whoever needs the file says what is wrong with it.
        return None
    return raw if isinstance(raw, dict) else None


def _conversion(folder: Path, pickle: str, weights: str) -> str:
    """The command that turns a pickle of tensors into safetensors; it reads nothing but tensors."""
    code = (
        "import sys, torch; from safetensors.torch import save_file; "
        "t = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
        "t = t.get('sae', t); "
        "save_file({k: v.contiguous() for k, v in t.items() if torch.is_tensor(v)}, sys.argv[2])"
    )
    return f"python -c \"{code}\" '{folder / pickle}' '{folder / weights}'"
