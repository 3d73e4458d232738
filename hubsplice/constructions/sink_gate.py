"""The gate of neurons that fire on sinks alone."""

from __future__ import annotations

import torch
from torch import Tensor

from hubsplice.constructions.bias_grid import on_grid
from hubsplice.constructions.readout import RidgeFitter
from hubsplice.constructions.site_view import SiteView

# How steeply the gate rises from ordinary tokens to sinks.
_GAIN = 256.0


def sink_gate(view: SiteView, half_gap: float) -> tuple[Tensor, Tensor]:
    """A row [1, d] and a bias [1] around which two gates lie, `half_gap` above and below.

    It is far below zero on ordinary tokens, and far above on sinks.
    """
    balance = torch.where(view.is_sink, 1 / view.is_sink.sum(), 1 / (~view.is_sink).sum())
    detector = RidgeFitter(view.x, balance.double(), damping=1e-4).fit(view.is_sink.double())
    weight = _GAIN * detector.weight.double()[None]
    bias = torch.tensor([_GAIN * (detector.bias - 0.5)], dtype=torch.float64)
    return weight, on_grid(bias, half_gap, view.dtype)
