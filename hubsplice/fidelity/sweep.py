"""Streams of the text, moved along one edit's encoder until its pre-activation has any value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site, Term

_POINTS = 29
_STREAMS, _FEWEST_STREAMS = 64, 16
_MOST_TOKENS = 2**17
"""Of all sweeps of a site together: a small part of what the text itself takes."""

_BESIDE = (0.02, 0.1, 0.25, 0.5)
"""How far from a jump points are, in deviations of p. A ramp stands for the jump in weights: it is
shown, and what lies on it is not judged, all but the last of these points."""

_SINK_MULTIPLE = 5.0

_BEYOND = 3.0
"""How far a sweep goes beyond the last bend at the least, in the same."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """One term of a site, and what its response is measured on.

    Attributes:
        site: the term's, with all others.
        number: which of its terms.
        p: where the response is measured, shape [points], float64, increasing.
        streams: at each of them, shape [points, streams, d], float32.
        ordinary: which of these are like the text's own, shape [points, streams].
        judged: which points lie on no jump's ramp, shape [points].
        reached: which of these lie where the text's own p is, or a deviation of p from a bend, same
            shape.
        size: |φ| one deviation of p beyond a bend, the largest: what an edit does at the least
            where it acts.
    """

    site: Site
    number: int
    p: Tensor
    streams: Tensor
    ordinary: Tensor
    judged: Tensor
    reached: Tensor
    size: float

    @property
    def term(self) -> Term:
        """The term."""
        return self.site.terms[self.number]


def sweeps(site: Site, h: Tensor) -> Iterator[Sweep]:
    """A sweep for every term whose φ depends on p, one after the other.

    Where there are very many terms, the last of them have none.

    Args:
        site: the edits.
        h: the stream at the site over scored tokens, shape [tokens, d], float32.
    """
    norms = h.norm(dim=-1)
    # Also where an edit is made on sinks, its curve is of ordinary tokens.
    sink_norm = min(site.sink_norm, _SINK_MULTIPLE * float(norms.median())) if len(h) else 0.0
    h = h[norms <= sink_norm]
    swept = [
        number
        for number, term in enumerate(site.terms)
        if any(term.function.slopes) or term.function.breakpoints
    ]
    if len(h) < 2 or not swept:
        return
    each = _MOST_TOKENS // (_POINTS * len(swept))
    count = min(max(each, _FEWEST_STREAMS), _STREAMS, len(h))
    chosen = h[torch.linspace(0, len(h) - 1, count).round().long()]
    largest = max(float(h.norm(dim=-1).max()), sink_norm / 2)
    for number in swept[: _MOST_TOKENS // (_POINTS * count)]:
        term = site.terms[number]
        alone = replace(site, terms=(term,))
        # Where its condition holds, the curve of a term is that of φ.
        p = alone.projections(h)[:, 0].double()
        spread, size = float(p.std()), _size(term, float(p.std()))
        if not spread or not size:
            continue
        points, judged, step = _points(term, p, spread)
        streams = moved(term, opened(term, chosen, h), points)
        found = alone.projections(streams)[..., 0].double()
        ordinary = (streams.norm(dim=-1) <= largest) & ((found - points[:, None]).abs() < step / 2)
        kept = ordinary.double().mean(dim=1) >= 0.5
        bends = term.function.breakpoints or (float(p.min()),)
        low = min(float(p.min()), bends[0] - spread)
        high = max(float(p.max()), bends[-1] + spread)
        reached = judged & (points >= low) & (points <= high)
        if (kept & reached).any():
            yield Sweep(
                site,
                number,
                points[kept],
                streams[kept],
                ordinary[kept],
                judged[kept],
                reached[kept],
                size,
            )


def moved(term: Term, h: Tensor, p: Tensor) -> Tensor:
    """Streams [n, d] moved by the shortest way to each pre-activation of p [m], shape [m, n, d]."""
    encoder = term.encoder.double()
    if term.normalization is Normalization.LAYER_NORM:
        encoder = encoder - encoder.mean()
    way = encoder / encoder.square().sum()
    stream = h.double().expand(len(p), *h.shape)
    # The scale follows the stream that it is of, and so the way there is found in steps.
    for _ in range(1 if term.normalization is Normalization.NONE else 20):
        normalised, scale = term.normalization.apply(stream)
        gap = p[:, None] - (normalised @ encoder + term.bias)
        stream = stream + scale * gap[..., None] * way
    return stream.float()


def opened(term: Term, h: Tensor, text: Tensor) -> Tensor:
    """Streams [n, d] moved by the shortest way to where the gates of a term's condition are open.

    They stay where they are along the term's own encoder.

    Args:
        term: the term.
        h: the streams.
        text: the stream of the text, shape [tokens, d], whose spread says how far a gate is opened.
    """
    if term.condition is None:
        return h
    rows, missing = [], []
    for gate in term.condition.gates:
        read = gate.encoder.double()
        spread = float((text.double() @ read).std())
        rows.append(read)
        missing.append(gate.threshold + spread - gate.bias - h.double() @ read)
    wanted = torch.stack(missing, dim=1).clamp(min=0.0)
    if term.encoder.any():
        rows.append(term.encoder.double())
        wanted = torch.cat([wanted, torch.zeros_like(wanted[:, :1])], dim=1)
    return (h.double() + wanted @ torch.linalg.pinv(torch.stack(rows)).T).float()


def _points(term: Term, p: Tensor, spread: float) -> tuple[Tensor, Tensor, float]:
    """The points of a sweep, which are judged, and how far apart they are for the most part."""
    function, bends = term.function, term.function.breakpoints
    low, high = float(p.min()), 2 * float(p.max())
    if bends:
        # Left of the first bend there is mostly nothing to see.
        low = low if function.slopes[0] else bends[0]
        low, high = min(low, bends[0] - _BEYOND * spread), max(high, bends[-1] + _BEYOND * spread)
    if function.slopes[0]:
        low = min(low, 2 * float(p.min()))
    grid = torch.linspace(low, high, _POINTS, dtype=torch.float64)
    step = float(grid[1] - grid[0])
    jumps = [kink.at for kink in function.kinks if kink.jump]
    offsets = torch.tensor(_BESIDE, dtype=torch.float64) * spread
    near = float(offsets[-1])
    for jump in jumps:
        grid = torch.cat([grid[(grid - jump).abs() > near], jump - offsets, jump + offsets])
    grid = grid.sort().values
    judged = torch.ones_like(grid, dtype=torch.bool)
    for jump in jumps:
        judged &= (grid - jump).abs() > 0.99 * near
    return grid, judged, step


def _size(term: Term, spread: float) -> float:
    bends = term.function.breakpoints or (term.bias,)
    return max(abs(term.function(bend + side * spread)) for bend in bends for side in (-1, 1))
