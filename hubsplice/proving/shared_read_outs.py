"""What rows read beside their encoders: multiples, known beforehand, of a few common read-outs.

A row is m·(e + α₁·u₁ + α₂·u₂ …), rounded once. The encoder e and the amounts α follow from the
edit and from what attention adds. The read-outs u were fitted to calibration and are not known, but
they are the same for all rows: as soon as there are more rows than read-outs, rows tell on each
other. The steepness m is known of some rows, and of others found with the read-outs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# What several roundings may add up to beyond the sum of their halves: steepnesses are fitted, too.
_ROOM = 1.5

_ROUNDS = 4

# From which share on read-outs count, and rows tell on others.
_LEAST, _TELLING = 1e-12, 1e-6


@dataclass(frozen=True, eq=False)
class Row:
    """A row that reads an encoder.

    Attributes:
        neuron: whose.
        label: the edit's.
        stored: what it holds, shape [d], float64.
        encoder: what it is to read, turned round where it opens below, shape [d], float64.
        amounts: of each read-out, shape [n].
        half: what rounding may have moved it by, shape [d].
        steepness: what all of it was multiplied by; None where that is not known.
        unsure: how far each amount may be off, shape [n].
    """

    neuron: int
    label: str
    stored: Tensor
    encoder: Tensor
    amounts: Tensor
    half: Tensor
    unsure: Tensor
    steepness: float | None = None


def wrong_rows(rows: Sequence[Row], dtype: torch.dtype) -> list[tuple[Row, int]]:
    """The rows that no common read-outs explain, each with the channel that is farthest off.

    Args:
        rows: with as many amounts each.
        dtype: what they were rounded to.
    """
    if len(rows) < 2:
        return []
    stored = torch.stack([row.stored for row in rows])
    encoders = torch.stack([row.encoder for row in rows])
    half = torch.stack([row.half for row in rows])
    amounts = torch.stack([row.amounts for row in rows])
    sizes = amounts.norm(dim=0).clamp(min=1e-300)
    amounts = amounts / sizes
    known = torch.tensor([r.steepness is not None for r in rows])
    along = (stored * encoders).sum(dim=1).abs() / encoders.square().sum(dim=1)
    flatness = 1 / along.clamp(min=1e-30)
    for i, row in enumerate(rows):
        if row.steepness is not None:
            flatness[i] = 1 / row.steepness
    for _ in range(_ROUNDS):
        # Rows count by how finely they are rounded.
        noise = (half.norm(dim=1) * flatness)[:, None]
        across = _across(amounts / noise)
        flatness = _flatnesses(stored / noise, encoders / noise, across, flatness, known)
    noise = (half.norm(dim=1) * flatness)[:, None]
    across = _across(amounts / noise)
    off = noise * (across @ ((flatness[:, None] * stored - encoders) / noise))
    room = noise * (across.abs() @ (half * flatness[:, None] / noise))
    # The fit of a steepness moves a row as a whole.
    fitted = torch.finfo(dtype).eps / stored.shape[1] ** 0.5
    room = _ROOM * (room + fitted * flatness[:, None] * stored.abs())
    if not known.all():
        # Steepnesses that suit best leave no more than the right ones do, but in other channels.
        allowed = (across.diagonal()[:, None] * (half * flatness[:, None] / noise).square()).sum()
        if (off / noise).square().sum() <= allowed:
            return []
    unsure = torch.stack([row.unsure for row in rows]) / sizes
    read_outs = torch.linalg.pinv(amounts / noise, rtol=_LEAST) @ (
        (flatness[:, None] * stored - encoders) / noise
    )
    room = room + noise * (across.abs() @ (unsure @ read_outs.abs() / noise))
    return [
        (row, int((off[i].abs() - room[i]).argmax()))
        for i, row in enumerate(rows)
        if across[i, i] > _TELLING and (off[i].abs() > room[i]).any()
    ]


def _across(amounts: Tensor) -> Tensor:
    """The projection [rows, rows] to what no read-outs of these amounts [rows, n] explain."""
    vectors, values, _ = torch.linalg.svd(amounts, full_matrices=False)
    spanned = vectors[:, values > _LEAST * values.max()]
    if spanned.shape[1] == len(amounts):
        return torch.zeros(len(amounts), len(amounts), dtype=amounts.dtype)
    return torch.eye(len(amounts), dtype=amounts.dtype) - spanned @ spanned.T


def _flatnesses(
    stored: Tensor, encoders: Tensor, across: Tensor, before: Tensor, known: Tensor
) -> Tensor:
    """One over the steepness of each row, by what read-outs of no length explain best, [n]."""
    # A row that alone decides a read-out says nothing of its own steepness.
    asked = ~known & (across.diagonal() > _TELLING)
    if not asked.any():
        return before
    alike = across * (stored @ stored.T)
    wanted = (across * (stored @ encoders.T)).sum(dim=1) - alike[:, ~asked] @ before[~asked]
    found = torch.linalg.lstsq(
        alike[asked][:, asked], wanted[asked][:, None], driver="gelsd"
    ).solution[:, 0]
    flatness = before.clone()
    flatness[asked] = torch.where(found > 0, found, before[asked])
    return flatness
