"""The tensors that a checkpoint's files really hold, and comparisons of their bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hubsplice.checkpoint.companions import WEIGHTS_INDEX
from hubsplice.checkpoint.layout import DTYPE_NAMES
from hubsplice.errors import CheckpointError
from hubsplice.files.plain import open_plain
from hubsplice.files.safetensors_header import DTYPE_BITS, TensorEntry, read_header
from hubsplice.files.strict_json import read_object

# A multiple of every dtype's size.
_CHUNK = 1 << 22

OnRead = Callable[[int], None]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor, and the file that holds it."""

    path: Path
    entry: TensorEntry


def read_weights(folder: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors of every safetensors file in a folder, and what is wrong with the index.

    Files are read as they are, whatever the index says of them; one that is damaged is a
    problem, and its tensors are left out.

    Returns:
        The tensors by name, and the problems, each naming a file or a tensor.
    """
    tensors: dict[str, StoredTensor] = {}
    problems: list[str] = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            header = read_header(path)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for entry in header.tensors:
            if entry.name in tensors:
                other = tensors[entry.name].path.name
                problems.append(f"{path.name}: tensor {entry.name!r} is in {other} as well")
            tensors[entry.name] = StoredTensor(path, entry)
    return tensors, problems + _index_problems(folder, tensors)


def _index_problems(folder: Path, tensors: Mapping[str, StoredTensor]) -> list[str]:
    try:
        index = read_object(folder / WEIGHTS_INDEX, source=WEIGHTS_INDEX)
    except CheckpointError as error:
        return [str(error)]
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict):
        return [f"{WEIGHTS_INDEX}: expected a weight_map from tensors to files"]
    problems = []
    for name, file in sorted(weight_map.items()):
        if name not in tensors:
            problems.append(f"{WEIGHTS_INDEX}: tensor {name!r} is in no file, expected in {file!r}")
        elif tensors[name].path.name != file:
            found = tensors[name].path.name
            problems.append(f"{WEIGHTS_INDEX}: tensor {name!r} is in {found}, expected in {file!r}")
    problems += [
        f"{stored.path.name}: {WEIGHTS_INDEX} does not list tensor {name!r}"
        for name, stored in tensors.items()
        if name not in weight_map
    ]
    size = sum(stored.entry.size for stored in tensors.values())
    metadata = index.get("metadata")
    declared = metadata.get("total_size") if isinstance(metadata, dict) else None
    if declared != size:
        problems.append(f"{WEIGHTS_INDEX}: total_size: found {declared!r}, expected {size}")
    return problems


def first_difference(a: StoredTensor, b: StoredTensor, on_read: OnRead) -> int | None:
    """The flat index of the first element that differs between two tensors of one dtype and size.

    A chunk of each is in memory at a time.

    Args:
        a: the one tensor.
        b: the other.
        on_read: called with the number of bytes compared after each chunk.

    Returns:
        None where all bytes are the same.

    Raises:
        CheckpointError: a file cannot be read, or changed after its header was read.
    """
    offset = 0
    for left, right in zip(_chunks(a), _chunks(b), strict=True):
        if left != right:
            return _element(a.entry, offset + _first_unequal(left, right))
        offset += len(left)
        on_read(len(left))
    return None


def first_other_than(stored: StoredTensor, value: float, on_read: OnRead) -> int | None:
    """The flat index of the first element that is not exactly `value`; None where all are.

    Raises:
        CheckpointError: as `first_difference`.
        ValueError: the tensor's dtype is not one that new tensors have.
    """
    pattern = _bytes_of(value, stored.entry.dtype)
    offset = 0
    for chunk in _chunks(stored):
        expected = pattern * (len(chunk) // len(pattern))
        if chunk != expected:
            return _element(stored.entry, offset + _first_unequal(chunk, expected))
        offset += len(chunk)
        on_read(len(chunk))
    return None


def _chunks(stored: StoredTensor) -> Iterator[bytes]:
    position, end = stored.entry.start, stored.entry.end
    try:
        with open_plain(stored.path) as file:
            while position < end:
                data = os.pread(file.fileno(), min(_CHUNK, end - position), position)
                # The chunks of two files are compared pairwise: a short read is a cut file.
                if len(data) != min(_CHUNK, end - position):
                    raise CheckpointError(f"{stored.path}: the file changed while it was read")
                yield data
                position += len(data)
    except OSError as error:
        raise CheckpointError(f"{stored.path}: cannot be read: {error.strerror}") from None


def _first_unequal(a: bytes, b: bytes) -> int:
    differing = np.frombuffer(a, np.uint8) != np.frombuffer(b, np.uint8)
    return int(differing.argmax())


def _element(entry: TensorEntry, byte: int) -> int:
    return byte * 8 // DTYPE_BITS[entry.dtype]


def _bytes_of(value: float, dtype: str) -> bytes:
    for torch_dtype, name in DTYPE_NAMES.items():
        if name == dtype:
            return torch.tensor([value], dtype=torch_dtype).view(torch.uint8).numpy().tobytes()
    raise ValueError(f"{dtype} is no floating-point dtype")
