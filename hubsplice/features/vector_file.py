"""Files of vectors as people have them: safetensors, NumPy's .npz and .npy, GGUF control vectors.

None of them runs code when it is read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from hubsplice.errors import CheckpointError, UnsupportedError, blamed_on
from hubsplice.files.plain import open_plain

Tensors = Mapping[str, Callable[[], Tensor]]
"""By name, what reads the tensor."""

_ZIP = b"PK\x03\x04"
_MAGIC = {b"\x93NUMPY": "npy", b"GGUF": "gguf", _ZIP: "npz"}
_OTHERS = {
    b"\x80": "a pickle, which can run code when it is read",
    b"{": "JSON text",
    b"[": "JSON text",
}
_PICKLE = "a pickle of PyTorch (.pt), which can run code when it is read"
_LARGEST = 1 << 32
_FLOATS = ("F32", "F16", "F64")


def open_vectors(path: Path) -> Tensors:
    """The tensors of a file, by name; those of GGUF and NumPy files by their names there.

    Raises:
        CheckpointError: the file can't be read, or is of another kind.
        UnsupportedError: a GGUF file, while the package gguf is not installed.
    """
    with blamed_on(f"{path}: cannot be read"), open_plain(path) as file:
        start = file.read(8)
    kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if kind == "gguf":
        return _gguf(path)
    if kind == "npz" and not _holds_arrays(path):
        raise CheckpointError(_unexpected(path, _PICKLE))
    if kind is not None:
        with blamed_on(f"{path}: NumPy cannot read it"):
            return _numpy(path)
    other = next((name for magic, name in _OTHERS.items() if start.startswith(magic)), None)
    wrong = _unexpected(path, other)
    # Torch refuses in its own ways what safetensors lets through, such as 65 dimensions.
    with blamed_on(wrong), safe_open(path, framework="pt") as opened:
        names = list(opened.keys())

    def read(name: str) -> Tensor:
        with blamed_on(wrong), safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    return {name: lambda name=name: read(name) for name in names}  # type: ignore[misc]


def _unexpected(path: Path, kind: str | None) -> str:
    if kind is None:
        return f"{path} is not a readable safetensors file"
    return (
        f"{path} is {kind}, and a safetensors file was expected; `save_file` of the package "
        "safetensors writes one"
    )


def _holds_arrays(path: Path) -> bool:
    """Whether a ZIP file is NumPy's: of arrays, of a size that fits into memory."""
    with blamed_on(f"{path}: cannot be read"), zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if sum(part.file_size for part in parts) > _LARGEST:
        raise CheckpointError(f"{path}: its arrays take more than {_LARGEST >> 30} GiB")
    return bool(parts) and all(part.filename.endswith(".npy") for part in parts)


def _numpy(path: Path) -> Tensors:
    loaded = np.load(path, allow_pickle=False)
    arrays = {"array": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    return {name: partial(torch.from_numpy, array) for name, array in arrays.items()}


def _gguf(path: Path) -> Tensors:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise UnsupportedError(
            f"{path} is a GGUF file, which needs the package gguf: pip install 'hubsplice[gguf]'"
        ) from None
    with blamed_on(f"{path}: the package gguf cannot read it"):
        tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}

    def read(name: str) -> Tensor:
        found = tensors[name]
        if found.tensor_type.name not in _FLOATS:
            raise CheckpointError(
                f"{path}: tensor {name!r} is quantised ({found.tensor_type.name}); expected one "
                f"of {', '.join(_FLOATS)}"
            )
        with blamed_on(f"{path}: the package gguf cannot read it"):
            return torch.from_numpy(np.array(found.data))

    return {name: lambda name=name: read(name) for name in tensors}  # type: ignore[misc]
