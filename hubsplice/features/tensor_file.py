"""Single tensors from safetensors files, checked before anything is computed with them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from hubsplice.errors import CheckpointError, RecipeError, blamed_on, unknown_name
from hubsplice.files.plain import open_plain

_OTHERS = {
    b"\x93NUMPY": "an array of NumPy (.npy)",
    b"GGUF": "a GGUF file",
    b"PK\x03\x04": "a ZIP file, such as a pickle of PyTorch or arrays of NumPy (.npz), of which "
    "pickles can run code",
    b"\x80": "a pickle, which can run code when it is read",
    b"{": "JSON text",
    b"[": "JSON text",
}


def read_tensor(path: Path, name: str | None) -> tuple[str, Tensor]:
    """The tensor called `name`, or the only one of the file, as float32, with its name.

    Raises:
        RecipeError: no such file or tensor, or no name for a file with several.
        CheckpointError: the file is not a readable safetensors file, or the tensor holds
            something else than finite floating-point numbers.
    """
    if not path.is_file():
        raise RecipeError(f"path: {str(path)!r} is not a file; expected a safetensors file")
    # Torch refuses in its own ways what safetensors lets through, such as 65 dimensions.
    with blamed_on(f"{path} is {_kind(path)}"), safe_open(path, framework="pt") as file:
        names = list(file.keys())
        found = _choose(path, name, names)
        tensor: Tensor = file.get_tensor(found)
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"{path}: tensor {found!r} holds {tensor.dtype}; expected floating-point numbers"
        )
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{path}: tensor {found!r} holds NaN or infinity")
    return found, tensor.float()


def _kind(path: Path) -> str:
    """What a file is instead of a safetensors file, by its first bytes."""
    with blamed_on(f"{path}: cannot be read"), open_plain(path) as file:
        start = file.read(8)
    for magic, name in _OTHERS.items():
        if start.startswith(magic):
            return (
                f"{name}, and a safetensors file was expected; `save_file` of the package "
                "safetensors writes one"
            )
    return "not a readable safetensors file"


def _choose(path: Path, name: str | None, names: list[str]) -> str:
    if name is not None:
        if name not in names:
            raise RecipeError(unknown_name(f"tensor in {path}", name, names))
        return name
    if len(names) != 1:
        raise RecipeError(
            f"{path} holds {len(names)} tensors ({', '.join(sorted(names)[:20])}); "
            "name one with `tensor`"
        )
    return names[0]
