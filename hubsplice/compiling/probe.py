"""How fast this machine is at what a build computes, by trying a little of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_OPERATIONS = 4e9
_LARGEST_ROWS, _LARGEST_COLUMNS = 2048, 4096
_FEWEST_ROWS = 64
_LOGITS = 2**21
_FEW_ROWS = 16
_TRIES = 2

# What a layer does beside matrix products (norms, rotations, the attention's softmax, activations)
# costs time and counts no operations.
_BESIDE = 1.3


@dataclass(frozen=True)
class Speed:
    """Seconds for parts of the work, at one precision.

    Attributes:
        per_operation: for one floating-point operation of matrix products, with what a layer does
            beside.
        per_logit: from a hidden state to a probability in float64, without the product.
        per_weight: to use a weight for a few rows, as generating does.
    """

    per_operation: float
    per_logit: float
    per_weight: float


def probe(hidden_size: int, intermediate_size: int, dtype: torch.dtype) -> Speed:
    """Time a few products of a model's shapes, for well under a second."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    columns = min(intermediate_size, _LARGEST_COLUMNS)
    rows = int(_OPERATIONS / (2 * hidden_size * columns))
    rows = min(max(rows, _FEWEST_ROWS), _LARGEST_ROWS)
    with torch.inference_mode():
        weight = torch.ones(columns, hidden_size, dtype=dtype, device=device)
        h = torch.ones(rows, hidden_size, dtype=dtype, device=device)
        products = _seconds(lambda: functional.linear(h, weight), device)
        few = _seconds(lambda: functional.linear(h[:_FEW_ROWS], weight), device)
        logits = torch.zeros(_LOGITS // 1024, 1024, dtype=dtype, device=device)
        read = _seconds(lambda: _read(logits), device)
    return Speed(
        per_operation=_BESIDE * products / (2 * rows * hidden_size * columns),
        per_logit=read / _LOGITS,
        per_weight=few / weight.numel(),
    )


def _read(logits: Tensor) -> Tensor:
    """What `divergence.compare` makes of logits."""
    found = logits.double().log_softmax(dim=-1)
    return (found.exp() * found).sum(dim=-1)


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    times = []
    for _ in range(_TRIES + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    # The first one pays for what is set up once.
    return min(times[1:])
