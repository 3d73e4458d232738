"""Steering vectors and subspaces from files."""

from __future__ import annotations

import torch
from torch import Tensor

from hubsplice.errors import RecipeError
from hubsplice.features.references import TensorSource
from hubsplice.features.tensor_file import read_tensor


def load_vector(source: TensorSource, hidden_size: int, layer: int | None = None) -> Tensor:
    """A vector of shape [hidden_size], float32.

    Args:
        source: where it is.
        hidden_size: the width of the base's stream.
        layer: the layer whose output it is added to, for a file with a vector for each.

    Raises:
        RecipeError: no such file, tensor or row, another shape, or all zeros.
        CheckpointError: an unreadable file, or NaN or infinity in it.
    """
    name, vector = read_tensor(source.path, source.tensor, layer)
    vector = _row(vector, source, name)
    if tuple(vector.shape) != (hidden_size,):
        several = vector.ndim == 2 and vector.shape[1] == hidden_size
        advice = f"; say which of its {len(vector)} rows with `row`" if several else ""
        raise RecipeError(
            f"{source.path}: tensor {name!r} has shape {list(vector.shape)}; "
            f"expected [{hidden_size}], the model's hidden size{advice}"
        )
    if not vector.any():
        raise RecipeError(f"{source.path}: tensor {name!r} is all zeros and has no direction")
    return vector


def _row(stack: Tensor, source: TensorSource, name: str) -> Tensor:
    """The row that is meant of a tensor with several, and the only one of a tensor with one."""
    if source.row is None:
        return stack[0] if stack.ndim == 2 and len(stack) == 1 else stack
    if stack.ndim != 2 or source.row >= len(stack):
        rows = f"rows 0 to {len(stack) - 1}" if stack.ndim == 2 else "no rows"
        raise RecipeError(
            f"row: {source.row} is out of range; tensor {name!r} of {source.path} has {rows}"
        )
    return stack[source.row]


def load_subspace(source: TensorSource, hidden_size: int, layer: int | None = None) -> Tensor:
    """An orthonormal basis, shape [k, hidden_size], float32, of a tensor's rows.

    Rows that depend linearly on the others, to float32 precision, add no basis vector.

    Raises:
        RecipeError: no such file or tensor, another shape, or all zeros.
        CheckpointError: an unreadable file, or NaN or infinity in it.
    """
    name, rows = read_tensor(source.path, source.tensor, layer)
    if source.row is not None:
        rows = _row(rows, source, name)
    if rows.ndim not in (1, 2) or rows.shape[-1] != hidden_size or not rows.numel():
        raise RecipeError(
            f"{source.path}: tensor {name!r} has shape {list(rows.shape)}; expected "
            f"[{hidden_size}] or [k, {hidden_size}], {hidden_size} being the model's hidden size"
        )
    if not rows.any():
        raise RecipeError(f"{source.path}: tensor {name!r} is all zeros and spans no subspace")
    matrix = rows.reshape(-1, hidden_size).double()
    # The rows' lengths say nothing about their span, and must not decide its rank.
    lengths = matrix.norm(dim=1, keepdim=True)
    matrix = matrix[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0]
    _, singular, axes = torch.linalg.svd(matrix, full_matrices=False)
    tolerance = singular[0] * max(matrix.shape) * torch.finfo(torch.float32).eps
    return axes[singular > tolerance].float()
