"""The response curve: what an inserted layer writes as one edit's pre-activation p sweeps.

A text shows a layer at the strengths that the text happens to reach. Here real streams are moved
along the edit's encoder until p has any value, by the shortest way, h + (p' − p)·e/‖e‖². They pass
through the inserted layer alone, as it is in the checkpoint. What it writes along the edit's
direction is compared with φ(p) of the exact edit. What the other edits of the site should
contribute is taken away first.

So a curve needs no text on which the feature is active. It says nothing of the rest of the model,
and so it can show that a layer is wrong, and never that a model is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hubsplice.fidelity.alone import alone
from hubsplice.fidelity.inserted import InsertedAt
from hubsplice.fidelity.report import (
    Band,
    CurveFigures,
    CurvePrecision,
    EditFidelity,
    PrecisionFidelity,
    ResponseCurve,
)
from hubsplice.fidelity.sweep import Sweep, sweeps
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site
from hubsplice.streams.model import Model

_DIGITS = 4


@dataclass(frozen=True, eq=False)
class Response:
    """What one edit's layer did over a sweep at one precision.

    Attributes:
        label: the edit's.
        place: where it is.
        p: shape [points].
        exact: φ there, same shape.
        layer: what the layer wrote along the edit's direction, in units of φ.
        hook: the same of the exact edit, rounded with the stream to the precision.
        figures: how far the layer is from the exact edit.
    """

    label: str
    place: Place
    p: tuple[float, ...]
    exact: tuple[float, ...]
    layer: Band
    hook: Band
    figures: CurveFigures


def responses(
    model: Model,
    sites: Sequence[Site],
    inserted: Sequence[InsertedAt],
    streams: Mapping[Place, Tensor],
    scored: Tensor,
    ids: Tensor,
) -> tuple[Response, ...]:
    """The responses of a spliced model's layers, one for each term that reads the stream.

    Args:
        model: the spliced model; what leaves its layers has its dtype.
        sites: the edits.
        inserted: the layers, one for each site.
        streams: at the sites, each of shape [tokens, d], float32, from the hook model.
        scored: which of them count, shape [sequences, length].
        ids: the text, same shape.
    """
    found = []
    for site, layer in zip(sites, inserted, strict=True):
        swept = sweeps(site, streams[site.place][scored.flatten()])
        with alone(model, layer, ids) as made:
            found += [respond(sweep, made, model.dtype) for sweep in swept]
    return tuple(found)


def respond(sweep: Sweep, made: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Response:
    """The response to one sweep.

    Args:
        sweep: the streams.
        made: what the layer makes of streams [tokens, d] of a dtype.
        dtype: that dtype.
    """
    site, term = sweep.site, sweep.term
    before = sweep.streams.flatten(end_dim=1).to(dtype)
    wide = before.float()
    own = replace(site, terms=(term,)).delta(wide)
    others = site.delta(wide) - own
    along = term.direction / term.direction.square().sum()
    scale = term.normalization.apply(wide)[1][:, 0]

    def amount(change: Tensor) -> Tensor:
        found = ((change @ along) / scale).reshape(sweep.ordinary.shape)
        return found.masked_fill(~sweep.ordinary, math.nan).double()

    layer = amount(made(before).float() - wide - others)
    hook = amount(site.edit(before).float() - wide - others)
    exact = torch.tensor([term.function(p) for p in sweep.p.tolist()], dtype=torch.float64)
    # Against what is exact for the very same stream: rounding moves p itself.
    error, of_hook = ((written - amount(own)).nanmedian(dim=1).values for written in (layer, hook))
    return Response(
        term.label,
        site.place,
        _rounded(sweep.p),
        _rounded(exact),
        _band(layer),
        _band(hook),
        _figures(sweep, exact, error, of_hook),
    )


def with_figures(precision: PrecisionFidelity, found: Sequence[Response]) -> PrecisionFidelity:
    """The same measurements with the figures of each edit's curve: those of its worst term."""

    def worst(edit: EditFidelity) -> EditFidelity:
        own = [r.figures for r in found if (r.label, r.place) == (edit.label, edit.place)]
        curve = max(own, key=lambda figures: figures.deviation, default=None)
        return edit.model_copy(update={"curve": curve})

    return precision.model_copy(update={"edits": tuple(map(worst, precision.edits))})


def curves(found: Mapping[str, Sequence[Response]]) -> tuple[ResponseCurve, ...]:
    """The curves for the report, from the responses at each precision, by its name."""
    return tuple(
        ResponseCurve(
            label=same[0].label,
            layer=same[0].place.layer,
            block=same[0].place.block,
            p=same[0].p,
            exact=same[0].exact,
            precisions=tuple(
                CurvePrecision(dtype=name, layer=response.layer, hook=response.hook)
                for name, response in zip(found, same, strict=True)
            ),
        )
        for same in zip(*found.values(), strict=True)
    )


def _figures(sweep: Sweep, exact: Tensor, error: Tensor, of_hook: Tensor) -> CurveFigures:
    """Of what is wrong in the layer's response and in the hook's, both of shape [points]."""
    size = exact.abs().clamp(min=sweep.size)
    relative, hook_relative = error.abs() / size, of_hook.abs() / size
    near = relative.where(sweep.reached, torch.zeros_like(relative))
    relative = relative.where(sweep.judged, torch.zeros_like(relative))
    at, beyond = int(near.argmax()), int(relative.argmax())
    acts = sweep.reached & (exact != 0)
    energy = float(exact[acts].square().sum())

    def height(wrong: Tensor) -> float | None:
        return 1 + float((wrong * exact)[acts].sum()) / energy if energy else None

    return CurveFigures(
        deviation=float(near[at]),
        at=_round(float(sweep.p[at])),
        beyond=float(relative[beyond]),
        beyond_at=_round(float(sweep.p[beyond])),
        height=height(error),
        hook_deviation=float(hook_relative[sweep.reached].max()),
        hook_height=height(of_hook),
    )


def _band(values: Tensor) -> Band:
    """Of values [points, streams], over the streams that count."""
    low, median, high = values.nanquantile(
        torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64), dim=1
    )
    return Band(median=_rounded(median), low=_rounded(low), high=_rounded(high))


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(map(_round, values.tolist()))


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
