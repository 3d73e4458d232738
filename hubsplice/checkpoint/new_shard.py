"""Writing the shard of new tensors, of which most is zeros."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hubsplice.checkpoint.layout import DTYPE_NAMES, NewShardLayout, NewTensor, Zeros
from hubsplice.checkpoint.padded import Padded
from hubsplice.errors import CheckpointError
from hubsplice.files.digest import FileDigest
from hubsplice.files.safetensors_header import TensorEntry
from hubsplice.files.space import reserve

# Bytes of a tensor that are padded and written at once.
_PIECE = 1 << 22
_ZEROS = bytes(1 << 20)


def write_new_shard(
    shard: NewShardLayout,
    path: Path,
    new_tensors: Mapping[str, NewTensor],
    *,
    on_done: Callable[[int], None],
) -> FileDigest:
    """Write the shard piece by piece, each hashed and written from one place in memory.

    Args:
        shard: the plan.
        path: the new file; what is zero throughout a piece is left as a hole.
        new_tensors: by name; each is asked for once and not kept.
        on_done: called with the size of each part that is done.

    Returns:
        The digest of the file.

    Raises:
        CheckpointError: a tensor is not finite.
        OSError: a full disk, or a failing one.
    """
    sha256 = hashlib.sha256()
    end = 0
    with path.open("xb", buffering=0) as file:
        reserve(file.fileno(), path.parent, shard.size)
        for position, piece in _pieces(shard, new_tensors, on_done):
            _update_with_zeros(sha256, position - end)
            sha256.update(piece)
            end = position + len(piece)
            file.seek(position)
            while piece:
                piece = piece[file.write(piece) :]
        # What was never written reads as zeros, and takes no room.
        file.truncate(shard.size)
    _update_with_zeros(sha256, shard.size - end)
    return FileDigest(sha256.hexdigest(), shard.size)


def _update_with_zeros(sha256: hashlib._Hash, count: int) -> None:
    for start in range(0, count, len(_ZEROS)):
        sha256.update(_ZEROS[: count - start])


def _pieces(
    shard: NewShardLayout, new_tensors: Mapping[str, NewTensor], on_done: Callable[[int], None]
) -> Iterator[tuple[int, memoryview]]:
    """The bytes of the file that are not all zeros, and where they begin, in order."""
    yield 0, memoryview(shard.header)
    on_done(len(shard.header))
    for entry in shard.tensors:
        tensor = new_tensors[entry.name]
        if not isinstance(tensor, Zeros):
            yield from _tensor_pieces(entry, tensor)
        on_done(entry.size)


def _tensor_pieces(entry: TensorEntry, tensor: Tensor | Padded) -> Iterator[tuple[int, memoryview]]:
    if DTYPE_NAMES.get(tensor.dtype) != entry.dtype or tuple(tensor.shape) != entry.shape:
        raise ValueError(f"{entry.name}: the tensor changed between planning and writing")
    if not entry.size:
        return
    padded = tensor if isinstance(tensor, Padded) else _unpadded(tensor)
    row_size = entry.size // padded.shape[0]
    step = max(1, _PIECE // row_size)
    for start in range(0, len(padded.corner), step):
        filled = padded.corner[start : start + step].reshape(-1).contiguous()
        if not torch.isfinite(filled).all():
            raise CheckpointError(
                f"new tensor {entry.name!r} holds NaN or Inf, expected finite values"
            )
        # As numbers, negative zeros would pass for zeros.
        if filled.view(torch.uint8).any():
            rows = padded.rows(start, start + step).reshape(-1).view(torch.uint8)
            yield entry.start + start * row_size, rows.numpy().data


def _unpadded(tensor: Tensor) -> Padded:
    rows = tensor.detach().reshape(tensor.shape or (1,))
    return Padded(rows, tuple(rows.shape))
