"""Tensors of checkpoints: which layer one is in, and whether two are the same."""

from __future__ import annotations

import re

import torch
from torch import Tensor

_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """The layer that a tensor is in, by its name; None for those that are in none."""
    found = _LAYER.search(name)
    return None if found is None else int(found[1])


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are alike in shape, precision, and every bit."""
    return (
        a.dtype is b.dtype
        and a.shape == b.shape
        and torch.equal(
            a.contiguous().view(torch.uint8).flatten(), b.contiguous().view(torch.uint8).flatten()
        )
    )
