"""Activations at the sites, and the statistics that constants are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubsplice.intervention import Intervention
from hubsplice.model import Model, collect_streams, hooked
from hubsplice.place import Place


@dataclass(frozen=True, eq=False)
class SiteActivations:
    """The residual stream at one site over the calibration text, earlier edits applied.

    Attributes:
        reference: from the float32 model, shape [tokens, d], float32.
        serving: the same tokens from the model at the serving precision, shape [tokens, d].
        median_norm: the median residual norm of `reference`.
        eps: the epsilon of the model's RMSNorm.
    """

    reference: Tensor
    serving: Tensor
    median_norm: float
    eps: float


def stream_at(
    model: Model,
    ids: Tensor,
    places: Sequence[Place],
    earlier: Intervention,
    progress: Callable[[int, int], None],
) -> dict[Place, Tensor]:
    """The residual stream at some places, as edits at earlier places leave it.

    Args:
        model: the base model.
        ids: token ids, shape [sequences, length].
        places: where to look; an edit at one of them takes effect after the look.
        earlier: the edits.
        progress: told how many sequences are done, and how many there are.

    Returns:
        By place, shape [tokens, d], in the model's dtype, on the CPU.
    """
    with hooked(model, earlier):
        streams = collect_streams(model, ids, places, progress)
    return {place: h.flatten(end_dim=1) for place, h in streams.items()}


def median_norm(h: Tensor) -> float:
    """The median norm of the rows of h [tokens, d]."""
    return float(torch.linalg.vector_norm(h.float(), dim=-1).median())
