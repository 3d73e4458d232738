"""Cut a few features out of a SAELens SAE, into a folder that SAELens loads as an SAE of its own.

    python examples/slice_sae.py FOLDER OUTPUT 2034 1426 1330

The features are numbered anew, in the order given; `metadata.feature_indices` in the new `cfg.json`
says which they were.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"

# Where a feature lies in each tensor. Features of these SAEs don't compete: each is a function of
# its own column, so that a slice computes exactly what the whole computes.
_FEATURE_AXIS: dict[str, dict[str, int]] = {
    "standard": {"W_enc": 1, "b_enc": 0, "W_dec": 0},
    "jumprelu": {"W_enc": 1, "b_enc": 0, "threshold": 0, "W_dec": 0},
    "gated": {"W_enc": 1, "b_gate": 0, "b_mag": 0, "r_mag": 0, "W_dec": 0},
}

# Statistics of all features together, which say nothing about a few of them.
_OF_THE_WHOLE = ("l0", "num_dead_features")


def slice_sae(source: Path, target: Path, features: Sequence[int]) -> None:
    """Write the SAE that has only `features` of the SAE in `source`.

    Args:
        source: a folder that SAELens saved, of a standard, JumpReLU or gated SAE.
        target: the folder to write, which must not exist.
        features: indices into the SAE's features, no two the same.

    Raises:
        ValueError: an SAE whose features compete, or indices that are repeated or out of range.
        FileExistsError: `target` exists.
    """
    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    axes = _FEATURE_AXIS.get(config["architecture"])
    if axes is None:
        raise ValueError(
            f"architecture: found {config['architecture']!r}, expected one of "
            f"{', '.join(_FEATURE_AXIS)}; the features of others depend on each other"
        )
    _require_features(features, config["d_sae"])
    index = torch.tensor(features)

    def cut(name: str, tensor: Tensor) -> Tensor:
        return tensor.index_select(axes[name], index) if name in axes else tensor

    weights = load_file(source / WEIGHTS)
    target.mkdir(parents=True)
    save_file({n: cut(n, t).contiguous() for n, t in weights.items()}, target / WEIGHTS)
    sliced = json.dumps(_sliced_config(config, features), indent=2) + "\n"
    (target / CONFIG).write_text(sliced, encoding="utf-8")


def _sliced_config(config: dict[str, Any], features: Sequence[int]) -> dict[str, Any]:
    metadata = dict(config.get("metadata") or {})
    whole = {name: metadata.pop(name) for name in _OF_THE_WHOLE if name in metadata}
    return {
        **config,
        "d_sae": len(features),
        "metadata": {
            **metadata,
            "feature_indices": list(features),
            "sliced_from": {"d_sae": config["d_sae"], **whole},
        },
    }


def _require_features(features: Sequence[int], d_sae: int) -> None:
    if not features:
        raise ValueError("features: found none, expected at least one")
    if len(set(features)) < len(features):
        raise ValueError(f"features: found one twice in {list(features)}")
    outside = [feature for feature in features if not 0 <= feature < d_sae]
    if outside:
        raise ValueError(f"features: found {outside[0]}, expected 0 to {d_sae - 1}")


def main() -> None:
    """Parse the command line and slice."""
    parser = argparse.ArgumentParser(description="Cut a few features out of a SAELens SAE.")
    parser.add_argument("source", metavar="FOLDER", type=Path, help="the SAE, as SAELens saved it")
    parser.add_argument("target", metavar="OUTPUT", type=Path, help="the folder to write")
    parser.add_argument("features", metavar="FEATURE", type=int, nargs="+", help="its number")
    options = parser.parse_args()
    slice_sae(options.source, options.target, options.features)


if __name__ == "__main__":
    main()
