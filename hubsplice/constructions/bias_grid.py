"""Biases of pairs of neurons whose rounding must cancel."""

from __future__ import annotations

import torch
from torch import Tensor


def on_grid(biases: Tensor, saturation: float, dtype: torch.dtype) -> Tensor:
    """Biases rounded so that bias ± saturation are both representable in `dtype`."""
    largest = biases.abs() + saturation
    step = torch.exp2(torch.floor(torch.log2(largest))) * torch.finfo(dtype).eps
    return torch.round(biases / step) * step
