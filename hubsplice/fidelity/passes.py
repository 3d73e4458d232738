"""How many passes measuring makes; to be changed with `measure.measure_fidelity`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from hubsplice.fidelity.runs import NEW_TOKENS
from hubsplice.intervention.place import Place
from hubsplice.streams.passes import Decoding, Pass


def measuring_passes(
    places: Sequence[Place],
    dtype: torch.dtype,
    *,
    layers: int,
    added: int,
    plain: bool,
    drawn: int,
    prompts: int,
    scanned: int,
    kept: int,
) -> Iterator[Pass]:
    """The passes of `held_out_text` and `measure_fidelity`.

    Args:
        places: of the splices, in order.
        dtype: the serving precision.
        layers: how many the base has.
        added: how many are inserted.
        plain: whether a hook that edits sinks is measured too.
        drawn: tokens that are drawn at random.
        prompts: tokens of the recipe's prompts.
        scanned: tokens that are read in search of more.
        kept: how many of them are kept.
    """
    if places and (scanned or prompts):
        yield Pass(torch.float32, drawn + prompts + scanned, places[-1].layer + 1)
    text = drawn + prompts + kept
    # What all variants of a precision have in common is passed once.
    common = max(0, places[0].layer) if places else 0
    behind = layers - common
    yield Pass(torch.float32, text, common)
    yield Pass(torch.float32, text, behind, read=1)  # the base
    yield Pass(torch.float32, text, behind, read=1)  # the hook
    yield Pass(torch.float32, text, behind if plain else 0, read=1)  # a plain hook
    yield Pass(torch.float32, drawn, 0, read=2)  # what base and hook lose on the text
    if dtype is not torch.float32:
        yield Pass(dtype, text, layers, read=1)  # the hook
        yield Pass(dtype, text, behind + added, read=1)  # the splice
        # With what they are compared.
        yield Pass(torch.float32, text, 0, read=2)
    yield Pass(torch.float32, text, behind + added, read=2)  # the splice


def generations(dtype: torch.dtype) -> Iterator[Decoding]:
    """What hook, base and splice continue."""
    yield Decoding(torch.float32, 3 * NEW_TOKENS)
    yield Decoding(dtype, (1 if dtype is torch.float32 else 2) * NEW_TOKENS)
