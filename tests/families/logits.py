"""Logits of tiny checkpoints, to be compared bit by bit."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hubsplice.streams.model import loaded


def same_bits(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and torch.equal(
        left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8)
    )


def padded_batch() -> dict[str, Tensor]:
    """Two random texts, the second of them shorter and padded on the left."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, 320, (2, 40), generator=generator)
    mask = torch.ones_like(ids)
    ids[1, :11], mask[1, :11] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def logits_of(folder: Path, dtype: torch.dtype) -> Tensor:
    """What a checkpoint gives for the padded batch."""
    with loaded(folder, dtype) as model:
        logits: Tensor = model(**padded_batch()).logits
        return logits
