"""Single tensors from files of vectors, checked before anything is computed with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from hubsplice.errors import CheckpointError, RecipeError, unknown_name
from hubsplice.features.vector_file import open_vectors

_NUMBERED = re.compile(r"(?P<before>.*?)(?P<layer>[0-9]{1,6})(?P<after>[^0-9]*)")


def read_tensor(path: Path, name: str | None, layer: int | None = None) -> tuple[str, Tensor]:
    """The tensor called `name`, or the only one of the file, as float32, with its name.

    Args:
        path: the file.
        name: the tensor's; None for the only one, or for that of the layer.
        layer: the layer whose output is meant, in a file with a tensor for each layer.

    Raises:
        RecipeError: no such file or tensor, or no name for a file with several.
        CheckpointError: the file is not a readable one, or the tensor holds something else than
            finite floating-point numbers.
        UnsupportedError: a GGUF file, while the package gguf is not installed.
    """
    if not path.is_file():
        raise RecipeError(
            f"path: {str(path)!r} is not a file; expected a safetensors, .npz, .npy or GGUF file"
        )
    tensors = open_vectors(path)
    found = _choose(path, name, list(tensors), layer)
    tensor = tensors[found]()
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"{path}: tensor {found!r} holds {tensor.dtype}; expected floating-point numbers"
        )
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{path}: tensor {found!r} holds NaN or infinity")
    return found, tensor.float()


def _choose(path: Path, name: str | None, names: list[str], layer: int | None) -> str:
    if name is not None:
        if name not in names:
            raise RecipeError(unknown_name(f"tensor in {path}", name, names))
        return name
    by_layer = _by_layer(names)
    if layer is not None and by_layer:
        if layer not in by_layer:
            known = ", ".join(map(str, sorted(by_layer)))
            raise RecipeError(
                f"{path} holds a tensor for each of the layers {known}, and none for layer {layer}"
            )
        return by_layer[layer]
    if len(names) != 1:
        raise RecipeError(
            f"{path} holds {len(names)} tensors ({', '.join(sorted(names)[:20])}); "
            "name one with `tensor`"
        )
    return names[0]


def _by_layer(names: Iterable[str]) -> dict[int, str]:
    """The names by layer, where they differ in one number alone, as `direction.12` does."""
    found: dict[int, str] = {}
    shapes = set()
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match is None:
            return {}
        shapes.add((match["before"], match["after"]))
        found[int(match["layer"])] = name
    several = len(found) > 1 or any("direction" in before for before, _ in shapes)
    return found if len(shapes) == 1 and several else {}
