"""What inserted layers make of the base's own streams, as p sweeps over its range.

The read-outs of a layer are fitted to calibration, and no weight tells whether they are right: the
base's streams do. They are of text that comes with Python, which whoever verifies runs himself. The
inserted layer is evaluated by itself, in float32, as it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.errors import HubspliceError
from hubsplice.fidelity.curve import Response, respond
from hubsplice.fidelity.sweep import sweeps
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.proving.layer_check import WIDE
from hubsplice.proving.stored_layer import StoredLayer, stored_layers
from hubsplice.recipe.models import TextSource
from hubsplice.streams.calibration import stream_at
from hubsplice.streams.model import loaded
from hubsplice.terminal import Progress
from hubsplice.text.sequences import load_sequences
from hubsplice.text.tokenizer import load_tokenizer
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.proof import reader
from hubsplice.verifying.result import Check
from hubsplice.verifying.weights import StoredTensor

RESPONSE = "response"

_TOKENS, _LENGTH = 2048, 64

_HEIGHT = {torch.float32: 0.03, torch.bfloat16: 0.08}
_RISE = {torch.float32: 0.03, torch.bfloat16: 0.05}
# Points that are left out at either end of a piece, and how many it takes beside them.
_BESIDE, _FEWEST = 3, 3
# At how many tokens marks may be wrong by how much: where a condition is nearly met they are early.
_OFF, _FEW, _SHARE = 0.1, 4, 0.1
_NARROW_HEIGHT = {torch.float32: 0.15, torch.bfloat16: 0.6}


def height_limit(dtype: torch.dtype, width: int) -> float:
    """How far from the edit's a layer's height may be.

    In a narrow stream a feature's encoder is no small part of what read-outs read, and a stream
    that is moved along it is unlike any that they were fitted to.

    Args:
        dtype: the precision that the layer is compiled for.
        width: of the stream.
    """
    limits = _HEIGHT if width >= WIDE else _NARROW_HEIGHT
    return limits.get(dtype, limits[torch.bfloat16])


def response_check(
    claim: Claim,
    intervention: Intervention | None,
    stored: Mapping[str, StoredTensor],
    progress: Progress,
) -> Check:
    """Whether every layer answers to the base's streams as its edits do."""
    if intervention is None or not intervention.sites:
        return Check.impossible(RESPONSE, "there is no intervention to compare with")
    dtype = claim.dtype
    assert dtype is not None
    try:
        layers = list(stored_layers(claim.architecture, claim.manifest, dtype, reader(stored)))
        streams = base_streams(claim, intervention, progress)
    except (HubspliceError, KeyError, RuntimeError) as error:
        return Check.impossible(RESPONSE, str(error))
    found = [
        response
        for layer in layers
        for response in layer_responses(layer, intervention, streams[str(layer.place)])
    ]
    limit = height_limit(dtype, claim.architecture.hidden_size)
    marked = [
        problem
        for layer in layers
        for problem in mark_problems(layer, intervention, streams[str(layer.place)])
    ]
    problems = list(height_problems(found, limit))
    problems += rise_problems(found, intervention, dtype, claim.architecture.hidden_size)
    problems += marked
    if not found and not problems:
        return Check.of(RESPONSE, [], "no edit depends on the token, and weights prove the others")
    worst = max((abs(r.figures.height - 1) for r in found if r.figures.height), default=0.0)
    return Check.of(
        RESPONSE,
        problems,
        f"on streams of the base, {len(found)} response curves are within {worst:.1%} of their "
        f"edits' heights; {limit:.0%} are allowed",
    )


def layer_responses(
    stored: StoredLayer, intervention: Intervention, h: Tensor
) -> Iterator[Response]:
    """The response of one layer to each of its edits.

    Args:
        stored: the layer.
        intervention: all edits.
        h: the base's stream there, shape [tokens, d], float32.
    """
    site = next((s for s in intervention.sites if s.place == stored.place), None)
    if site is None or not site.terms:
        return
    made = evaluated(stored.whole, stored.eps)
    for sweep in sweeps(site, h):
        yield respond(sweep, made, torch.float32)


def mark_problems(stored: StoredLayer, intervention: Intervention, h: Tensor) -> Iterator[str]:
    """Marks by which two layers, were they exact, would do otherwise than the edit.

    Args:
        stored: the layers of one splice.
        intervention: all edits.
        h: the base's stream there, shape [tokens, d], float32.
    """
    site = next((s for s in intervention.sites if s.place == stored.place), None)
    if site is None or stored.marking is None:
        return
    try:
        marking, editing = stored.staged(site)
    except HubspliceError as error:
        yield str(error)
        return
    wanted = site.delta(h)
    wrong = (editing.edit(marking.edit(h)) - h - wanted).norm(dim=-1)
    size = wanted.norm(dim=-1)
    acts = size > 0
    typical = float(size[acts].median()) if acts.any() else 0.0
    off = int((wrong > _OFF * size.clamp(min=typical) + 1e-4 * h.norm(dim=-1)).sum())
    if off > _FEW + _SHARE * int(acts.sum()):
        yield (
            f"layer {stored.place}: with the marks that it has, {off} tokens of {len(h)} would be "
            "edited otherwise than the conditions say"
        )


def evaluated(layer: CompiledLayer, eps: float) -> Callable[[Tensor], Tensor]:
    """What a layer makes of streams [tokens, d], with nothing rounded but its weights."""
    exact = layer.to(torch.float32)
    return lambda h: torch.cat([exact(part, eps) for part in torch.split(h, 4096)])


def height_problems(found: list[Response], limit: float) -> Iterator[str]:
    """The edits whose height is off by more than a limit."""
    for response in found:
        height = response.figures.height
        if height is not None and abs(height - 1) > limit:
            yield (
                f"layer {response.place}: {response.label}: the layer makes {height:.3f} times the "
                "edit on streams of the base"
            )


def rises(response: Response, function: PiecewiseLinear) -> Iterator[float]:
    """How much faster than φ a layer's response rises, on every sloping piece of φ.

    A jump is exact by its weights and hides what a bend behind it does: the height of both together
    says little of the bend. The points of a piece that lie next to a jump are left out, since a
    ramp stands for the jump there.
    """
    p, exact, made = (
        torch.tensor(values, dtype=torch.float64)
        for values in (response.p, response.exact, response.layer.median)
    )
    pieces = (p[:, None] > torch.tensor(function.breakpoints, dtype=torch.float64)).sum(dim=1)
    for piece, slope in enumerate(function.slopes):
        on_it = (pieces == piece).nonzero()[:, 0][_BESIDE:-_BESIDE]
        if not slope or len(on_it) < _FEWEST:
            continue
        x = exact[on_it] - exact[on_it].mean()
        y = made[on_it] - made[on_it].mean()
        yield float(x @ y / x.square().sum())


def rise_problems(
    found: list[Response], intervention: Intervention, dtype: torch.dtype, width: int
) -> Iterator[str]:
    """The edits that rise otherwise than φ; streams that are narrow tell nothing of it."""
    if width < WIDE:
        return
    terms = {(s.place, t.label): t for s in intervention.sites for t in s.terms}
    for response in found:
        function = terms[response.place, response.label].function
        for rise in rises(response, function):
            if abs(rise - 1) > _RISE.get(dtype, _RISE[torch.bfloat16]):
                yield (
                    f"layer {response.place}: {response.label}: it rises {rise:.3f} times as fast "
                    "as the edit on streams of the base"
                )


def base_streams(claim: Claim, intervention: Intervention, progress: Progress) -> dict[str, Tensor]:
    """The base's stream at every site, by place, shape [tokens, d], float32."""
    folder = claim.base.folder
    source = TextSource(tokens=_TOKENS, sequence_length=_LENGTH)
    ids = load_sequences(source, load_tokenizer(folder), seed=0, part="held-out").ids
    places = [site.place for site in intervention.sites]
    with loaded(folder, torch.float32) as model:
        found = stream_at(
            model,
            ids,
            places,
            intervention,
            lambda done, total: progress("running the base", done, total),
        )
    return {str(place): h.float() for place, h in found.items()}
