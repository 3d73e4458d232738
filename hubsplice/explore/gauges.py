"""What can be read under each token: features' activations, and components along directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hubsplice.compiling.lowering import LoweredSplice
from hubsplice.compiling.open_plan import OpenPlan
from hubsplice.edits.base import Edit
from hubsplice.explore.contexts import one_line
from hubsplice.explore.passes import encoded
from hubsplice.features.sae import LoadedSae
from hubsplice.intervention.intervention import NO_EDIT, Intervention
from hubsplice.intervention.place import Place
from hubsplice.streams.model import Model, collect_streams


@dataclass(frozen=True, eq=False)
class Gauge:
    """Something to read of the stream at one place.

    Attributes:
        name: what it is called.
        place: where the stream is read.
        sink_norm: the norm above which a token is an attention sink, which has no reading.
        read: gives a number for each token of streams [tokens, d], shape [tokens].
    """

    name: str
    place: Place
    sink_norm: float
    read: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """What a gauge reads in one text.

    Attributes:
        gauge: the gauge's name.
        tokens: the text's tokens as they are shown.
        values: under each; None at attention sinks.
        prompt: how many of the tokens, the first ones, are the prompt's.
    """

    gauge: str
    tokens: tuple[str, ...]
    values: tuple[float | None, ...]
    prompt: int


def gauges(plan: OpenPlan, lowered: Sequence[LoweredSplice]) -> tuple[Gauge, ...]:
    """For each feature that an edit names its activation; for other edits what they write along.

    Args:
        plan: the recipe's.
        lowered: its splices, in the plan's order.
    """
    return tuple(
        gauge
        for planned, sae, splice in zip(plan.splices, plan.saes, lowered, strict=True)
        for gauge in _of_splice(planned.splice.edits, planned.place, sae, splice)
    )


def read(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    prompt: int,
    edit: Intervention | None,
    of: Sequence[Gauge],
) -> tuple[Reading, ...]:
    """Run a text with an edit, and read the stream behind it at each place.

    Args:
        model: the base.
        tokenizer: its tokenizer.
        ids: the text's tokens.
        prompt: how many of them are the prompt's.
        edit: what is done to the text; None for the base.
        of: the gauges.
    """
    if not of:
        return ()
    made = edit or NO_EDIT
    places = sorted({gauge.place for gauge in of})
    streams = collect_streams(model, torch.tensor([list(ids)]), places, edit=made)
    sites = {site.place: site for site in made.sites}
    norms, behind = {}, {}
    for place in places:
        h, site = streams[place][0].float(), sites.get(place)
        norms[place] = torch.linalg.vector_norm(h, dim=-1)
        behind[place] = h if site is None else site.edit(h)
    tokens = tuple(one_line(tokenizer, [token]) for token in ids)
    found = []
    for gauge in of:
        sink = norms[gauge.place] > gauge.sink_norm
        values = gauge.read(behind[gauge.place]).tolist()
        shown = tuple(None if out else v for v, out in zip(values, sink.tolist(), strict=True))
        found.append(Reading(gauge.name, tokens, shown, prompt))
    return tuple(found)


def _of_splice(
    edits: Sequence[Edit], place: Place, sae: LoadedSae | None, lowered: LoweredSplice
) -> Iterator[Gauge]:
    def gauge(name: str, read: Callable[[Tensor], Tensor]) -> Gauge:
        return Gauge(f"{name}, after layer {place}", place, lowered.sink_norm, read)

    known: set[int] = set()
    for edit in edits:
        label = f" ({edit.label})" if edit.label else ""
        for index in edit.feature_indices():
            if sae is not None and index not in known:
                known.add(index)
                yield gauge(f"feature {index}{label}", _activation(sae, index))
        if not edit.feature_indices():
            terms = zip(lowered.site.terms, lowered.origins, strict=True)
            term = next((term for term, origin in terms if origin is edit), None)
            if term is not None:
                yield gauge(f"along {term.label}", _component(term.direction))


def _activation(sae: LoadedSae, index: int) -> Callable[[Tensor], Tensor]:
    return lambda h: encoded(sae, h)[:, index]


def _component(direction: Tensor) -> Callable[[Tensor], Tensor]:
    unit = direction / direction.norm().clamp(min=1e-12)
    return lambda h: h @ unit
