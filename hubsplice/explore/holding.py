"""On how much of a prompt and its answer the conditions of edits held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hubsplice.compiling.lowering import LoweredSplice
from hubsplice.explore.answers import Holding
from hubsplice.explore.quick import Hook
from hubsplice.streams.model import Model, collect_streams


def held(
    model: Model, hook: Hook, answer: str, ids: Sequence[int], prompt: int
) -> tuple[Holding, ...]:
    """Count the tokens of one text on which each condition of an edit held, sinks left out.

    Args:
        model: the base.
        hook: the edit that gave the answer.
        answer: what the answer is called.
        ids: the text's tokens.
        prompt: how many of them, the first ones, are the prompt's.
    """
    splices = [splice for splice in hook.splices if splice.conditions]
    if not splices:
        return ()
    places = sorted({splice.site.place for splice in splices})
    streams = collect_streams(model, torch.tensor([list(ids)]), places, edit=hook.intervention)
    return tuple(
        holding
        for splice in splices
        for holding in _of_splice(splice, answer, streams[splice.site.place][0].float(), prompt)
    )


def _of_splice(splice: LoweredSplice, answer: str, h: Tensor, prompt: int) -> Iterator[Holding]:
    ordinary = ~splice.site.is_sink(h)
    asked, answered = h[:prompt][ordinary[:prompt]], h[prompt:][ordinary[prompt:]]
    for condition in splice.conditions:
        yield Holding(
            condition.label,
            answer,
            condition.count(asked).tokens,
            len(asked),
            condition.count(answered).tokens,
            len(answered),
        )
