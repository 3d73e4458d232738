"""Activations at the sites, and the statistics that constants are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.place import Place
from hubsplice.streams.model import Model, collect_streams

# Ten times what bfloat16 does to the stream of a deep model.
_PARTED = 0.1


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

    def agreeing(self) -> SiteActivations:
        """These activations without the tokens at which the two precisions have parted.

        Now and then a token becomes an attention sink in one of them and not in the other. That
        is no rounding, and a single such token can outweigh all others in a mean square.
        """
        apart = (self.serving.float() - self.reference).norm(dim=-1)
        kept = apart <= _PARTED * self.reference.norm(dim=-1)
        return replace(self, reference=self.reference[kept], serving=self.serving[kept])


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
    streams = collect_streams(model, ids, places, progress, earlier)
    return {place: h.flatten(end_dim=1) for place, h in streams.items()}


def median_norm(h: Tensor) -> float:
    """The median norm of the rows of h [tokens, d]."""
    return float(torch.linalg.vector_norm(h.float(), dim=-1).median())
