"""How many passes measuring makes; to be changed with `measure.measure_fidelity`."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

import torch

from hubsplice.fidelity.runs import MOST_READ, NEW_TOKENS, first_difference
from hubsplice.intervention.place import Place
from hubsplice.streams.passes import Decoding, Pass, TextTokens

PLAIN_SHARE, PLAIN_TOKENS = 8, 512
"""What a hook that edits sinks is run over: one part in so many of the text, and so many tokens at
the least. Nothing is judged by it, and over all text it would take as long as the hook itself."""


def plain_sequences(sequences: int, length: int) -> int:
    """How many sequences, the first ones, a hook that edits sinks is run over.

    Args:
        sequences: of the text.
        length: of each, in tokens.
    """
    wanted = max(-(-sequences // PLAIN_SHARE), -(-PLAIN_TOKENS // length))
    return min(sequences, wanted)


def measuring_passes(
    places: Sequence[Place],
    in_biases: Container[Place],
    dtype: torch.dtype,
    text: TextTokens,
    *,
    layers: int,
    added: int,
    plain_length: int | None,
) -> Iterator[Pass]:
    """The passes of `held_out_text` and `measure_fidelity`.

    Args:
        places: of the splices, in order.
        in_biases: those whose edit is in a bias of the base.
        dtype: the serving precision.
        text: the held-out text.
        layers: how many the base has.
        added: how many are inserted.
        plain_length: of a sequence, in tokens, where a hook that edits sinks is measured too.
    """
    known = text.drawn + text.prompts
    if places and (text.scanned or text.prompts):
        yield Pass(torch.float32, known + text.scanned, places[-1].layer + 1)
    tokens = known + text.kept
    # What all variants of a precision have in common is passed once.
    differ = first_difference(places, in_biases)
    common = 0 if differ is None else differ.layers_before(layers)
    behind = layers - common
    yield Pass(torch.float32, tokens, common)
    yield Pass(torch.float32, tokens, behind, read=1)  # the base
    yield Pass(torch.float32, tokens, behind, read=1)  # the hook
    if plain_length is not None:
        plain = plain_sequences(-(-tokens // plain_length), plain_length) * plain_length
        yield Pass(torch.float32, plain, behind, read=1)  # a plain hook
    if dtype is not torch.float32:
        yield Pass(dtype, tokens, layers, read=1)  # the hook
        yield Pass(dtype, tokens, behind + added, read=1)  # the splice
    yield Pass(torch.float32, tokens, behind + added, read=1)  # the splice


def generations(dtype: torch.dtype, read: Mapping[torch.dtype, int]) -> Iterator[Decoding]:
    """What hook, base and splice continue.

    Args:
        dtype: the serving precision.
        read: by precision, the bytes that each pass of the base reads from the disk.
    """
    serving = 1 if dtype is torch.float32 else 2
    # The float32 runs go in step, and the weights are read once for all of them.
    for precision, runs, readings in ((torch.float32, 3, 1), (dtype, serving, serving)):
        if read[precision] * NEW_TOKENS <= MOST_READ:
            yield Decoding(precision, runs * NEW_TOKENS, readings * NEW_TOKENS * read[precision])
