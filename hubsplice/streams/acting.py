"""Text on which edits act: a scan that runs a model only as far as the last site.

A feature that is active on one token in ten thousand is hardly met by chance. So text is read on
beyond the drawn sequences, and the sequences are kept in which an edit acts that has not acted
often enough yet. They are taken in the order in which they come and never for how much the edit
does there, so that they are as good a sample of the tokens on which it acts as any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from hubsplice.intervention.edits import acting, labels
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.place import Place
from hubsplice.streams.in_step import InStep
from hubsplice.streams.model import Model, batch_size, pass_by
from hubsplice.text.rows import Row, own_tokens, padded
from hubsplice.text.sequences import Text, TokenSequences

WANTED_TOKENS, WANTED_SEQUENCES = 200, 20
"""An edit that has acted on so many tokens, in so many sequences, needs no more text."""

EditKey = tuple[Place, str]
"""An edit of an intervention: its place and its label."""

Observe = Callable[[Place, Tensor], None]
"""Gets the stream at a place before its edits, shape [tokens, d], of tokens that are text."""


@dataclass(frozen=True, eq=False)
class ActingText:
    """Text, and which of it counts for which edit.

    Attributes:
        sequences: those drawn at random, then the recipe's prompts, then those that were found.
        counted: by edit, which sequences count for it, shape [sequences]: those drawn, the
            prompts, and those that were kept for its sake. One kept for another edit's sake is
            no fair sample of its tokens.
        acted: on how many tokens each edit acted in the sequences that count for it.
        scanned: how many tokens were read in search of more.
    """

    sequences: TokenSequences
    counted: Mapping[EditKey, Tensor]
    acted: Mapping[EditKey, int]
    scanned: int

    @staticmethod
    def drawn(sequences: TokenSequences) -> ActingText:
        """Sequences that count for every edit, none of which was looked for."""
        return ActingText(sequences, {}, {}, 0)

    def counts_for(self, edit: EditKey) -> Tensor:
        """Which sequences count for an edit, shape [sequences]."""
        every = torch.ones(len(self.sequences.ids), dtype=torch.bool)
        return self.counted.get(edit, every)


def acting_text(
    model: Model,
    intervention: Intervention,
    text: Text,
    *,
    budget: int,
    kind: str,
    progress: Callable[[str, int, int], None],
    drawn: Mapping[Place, Tensor] | None = None,
    observe: Observe | None = None,
) -> ActingText:
    """Look for text on which every edit acts.

    At most as many sequences are kept as were drawn, so that what follows at most doubles. Edits
    that lack text share them alike: a common one must not take the room of a rare one.

    Args:
        model: the base model, without hooks.
        intervention: the edits; later sites read what earlier ones leave.
        text: the drawn sequences, and where more is.
        budget: the most tokens that are read beyond the drawn ones.
        kind: what messages call such text, such as `held-out`.
        progress: told of the step and how many tokens are read.
        drawn: the streams of the drawn sequences before the edits, each of shape [tokens, d],
            where they are known; the model is run for them otherwise.
        observe: shown the streams of the prompts and of all that is read beyond what was drawn.
    """
    scan = _Scan(model, intervention, text.length)
    if not scan.keys or (not budget and not text.prompts):
        return ActingText.drawn(text.sequences(text.prompts))
    tally = _Tally(scan.keys, len(text.drawn))
    step = f"looking for {kind} text on which the edits act"
    progress(step, 0, budget)
    if drawn is not None:
        shaped = {place: h.reshape(-1, text.length, h.shape[-1]) for place, h in drawn.items()}
        tally.add(scan.count(shaped))
    else:
        for _, acted in scan.batches(text.drawn):
            tally.add(acted)
    for _, acted in scan.batches(text.prompts, observe):
        tally.add(acted)
    kept: list[Row] = []
    reasons: list[Tensor] = []
    read = 0
    room = torch.full_like(
        tally.tokens, max(1, len(text.drawn) // max(1, int(tally.lacking.sum())))
    )

    def wanting() -> Tensor:
        return tally.lacking & (room > 0)

    def done() -> bool:
        return read >= budget or len(kept) >= len(text.drawn) or not bool(wanting().any())

    for rows, acted in () if done() else scan.batches(text.further, observe):
        for row, found in zip(rows, acted, strict=True):
            reason = (found > 0) & wanting()
            if reason.any():
                kept.append(row)
                reasons.append(reason)
                tally.add(torch.where(reason, found, 0)[None])
                room -= reason.long()
            read += len(row.ids)
            if done():
                break
        progress(f"{step}: {tally}", min(read, budget), budget)
        if done():
            break
    progress(f"{step}: {tally}", budget, budget)
    given = len(text.drawn) + len(text.prompts)
    every = torch.ones(given, len(scan.keys), dtype=torch.bool)
    counted = torch.cat([every, *(reason[None] for reason in reasons)])
    return ActingText(
        text.sequences((*text.prompts, *kept)),
        dict(zip(scan.keys, counted.T, strict=True)),
        dict(zip(scan.keys, tally.tokens.tolist(), strict=True)),
        read,
    )


class _Tally:
    """On how many tokens, in how many sequences, each edit has acted."""

    def __init__(self, keys: Sequence[EditKey], drawn: int) -> None:
        self._keys, self._wanted_sequences = keys, min(WANTED_SEQUENCES, drawn)
        self.tokens = torch.zeros(len(keys), dtype=torch.long)
        self._sequences = torch.zeros(len(keys), dtype=torch.long)

    def add(self, acted: Tensor) -> None:
        """Count sequences, by the tokens on which each edit acts in them, [sequences, edits]."""
        self.tokens += acted.sum(dim=0)
        self._sequences += (acted > 0).sum(dim=0)

    @property
    def lacking(self) -> Tensor:
        """Which edits have too few, shape [edits]."""
        return (self.tokens < WANTED_TOKENS) | (self._sequences < self._wanted_sequences)

    def __str__(self) -> str:
        lacking = self.lacking
        text = f"{int((~lacking).sum())} of {len(self._keys)} have enough"
        if not lacking.any():
            return text
        scarce = int(torch.where(lacking, self.tokens, self.tokens.max() + 1).argmin())
        return (
            f"{text}, {self._keys[scarce][1]} has {int(self.tokens[scarce])} of {WANTED_TOKENS} "
            "tokens"
        )


class _Scan:
    """A model with hooks that says of each sequence on how many tokens each edit acts."""

    def __init__(self, model: Model, intervention: Intervention, length: int) -> None:
        self._model, self._intervention, self._length = model, intervention, length
        self._sites = {site.place: site for site in intervention.sites if site.terms}
        self.keys: tuple[EditKey, ...] = tuple(
            (place, label) for place, site in self._sites.items() for label in labels(site)
        )

    def batches(
        self, rows: Iterable[Row], observe: Observe | None = None
    ) -> Iterator[tuple[Sequence[Row], Tensor]]:
        """Rows, and the tokens on which each edit acts, shape [rows, edits], batch by batch."""
        remaining, size = iter(rows), batch_size(self._model, self._length)
        while batch := list(islice(remaining, size)):
            yield batch, self._acted(batch, observe)

    def count(self, streams: Mapping[Place, Tensor], is_text: Tensor | None = None) -> Tensor:
        """On how many tokens each edit acts, shape [sequences, edits].

        Args:
            streams: before the edits, by place, each of shape [sequences, length, d].
            is_text: which tokens are text, shape [sequences, length]; all by default.
        """
        found = []
        for place, site in self._sites.items():
            here = acting(site, streams[place]).cpu()
            if is_text is not None:
                here &= is_text[..., None]
            # The first token of a sequence doesn't count.
            found.append(here[:, 1:].sum(dim=1))
        return torch.cat(found, dim=1)

    def _acted(self, rows: Sequence[Row], observe: Observe | None) -> Tensor:
        ids, lengths = padded(rows, max(len(row.ids) for row in rows))
        is_text = own_tokens(lengths, ids.shape[1])
        streams: dict[Place, Tensor] = {}

        def see(place: Place, h: Tensor) -> None:
            # The edit may be written into h where it stands.
            streams[place] = h.clone()
            if observe is not None:
                observe(place, h[is_text.to(h.device)])

        step = InStep(self._model, [ids])
        pass_by(self._model, step, self._intervention, list(self._sites), see)
        return self.count(streams, is_text)
