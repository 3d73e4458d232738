"""Text on which edits act: a scan that runs a model only as far as the last site.

A feature that is active on one token in ten thousand is hardly met by chance. So text is read on
beyond the drawn sequences, and the sequences are kept in which an edit acts that has not acted
often enough yet. They are taken in the order in which they come and never for how much the edit
does there, so that they are as good a sample of the tokens on which it acts as any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice

import torch
from torch import Tensor

from hubsplice.intervention.edits import acting, labels
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.place import Place
from hubsplice.streams.model import Model, StopEarly, batch_size, hooked, seeing
from hubsplice.text.rows import Row
from hubsplice.text.sequences import Text, TokenSequences

ENOUGH_TOKENS, ENOUGH_SEQUENCES = 200, 20
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
    observe: Observe | None = None,
) -> ActingText:
    """Look for text on which every edit acts.

    At most as many sequences are kept as were drawn, so that what follows at most doubles.

    Args:
        model: the base model, without hooks.
        intervention: the edits; later sites read what earlier ones leave.
        text: the drawn sequences, and where more is.
        budget: the most tokens that are read beyond the drawn ones.
        kind: what messages call such text, such as `held-out`.
        progress: told of the step and how many tokens are read.
        observe: shown the streams of the prompts and of all that is read beyond what was drawn.
    """
    scan = _Scan(model, intervention)
    given = (*text.drawn, *text.prompts)
    keys = scan.keys
    step = f"looking for {kind} text on which the edits act"
    if not keys or (not budget and not text.prompts):
        return ActingText.drawn(text.sequences(text.prompts))
    tokens = torch.zeros(len(keys), dtype=torch.long)
    sequences = torch.zeros(len(keys), dtype=torch.long)
    drawn, prompts = scan.batches(text.drawn), scan.batches(text.prompts, observe)
    for _, acted in chain(drawn, prompts):
        tokens += acted.sum(dim=0)
        sequences += (acted > 0).sum(dim=0)
    kept: list[Row] = []
    reasons: list[Tensor] = []
    read = 0

    def lacking() -> Tensor:
        few = sequences < min(ENOUGH_SEQUENCES, len(text.drawn))
        return (tokens < ENOUGH_TOKENS) | few

    def done() -> bool:
        return read >= budget or len(kept) >= len(text.drawn) or not bool(lacking().any())

    def described() -> str:
        scarce = int(torch.where(lacking(), tokens, ENOUGH_TOKENS).argmin())
        return (
            f"{step}: {int((~lacking()).sum())} of {len(keys)} have enough, {keys[scarce][1]} "
            f"has {int(tokens[scarce])} of {ENOUGH_TOKENS} tokens"
        )

    for rows, acted in () if done() else scan.batches(text.further, observe):
        for row, found in zip(rows, acted, strict=True):
            reason = (found > 0) & lacking()
            if reason.any():
                kept.append(row)
                reasons.append(reason)
                tokens += torch.where(reason, found, 0)
                sequences += reason.long()
            read += len(row.ids)
            if done():
                break
        progress(described(), min(read, budget), budget)
        if done():
            break
    progress(described(), budget, budget)
    every = torch.ones(len(given), len(keys), dtype=torch.bool)
    counted = torch.cat([every, *(reason[None] for reason in reasons)])
    return ActingText(
        text.sequences((*text.prompts, *kept)),
        dict(zip(keys, counted.T, strict=True)),
        dict(zip(keys, tokens.tolist(), strict=True)),
        read,
    )


class _Scan:
    """A model with hooks that says of each sequence on how many tokens each edit acts."""

    def __init__(self, model: Model, intervention: Intervention) -> None:
        self._model, self._intervention = model, intervention
        self._sites = {site.place: site for site in intervention.sites if site.terms}
        self.keys: tuple[EditKey, ...] = tuple(
            (place, label) for place, site in self._sites.items() for label in labels(site)
        )

    def batches(
        self, rows: Iterable[Row], observe: Observe | None = None
    ) -> Iterator[tuple[list[Row], Tensor]]:
        """Rows, and the tokens on which each edit acts, shape [rows, edits], batch by batch."""
        remaining = iter(rows)
        first = next(remaining, None)
        if first is None:
            return
        size = batch_size(self._model, len(first.ids))
        batch = [first, *islice(remaining, size - 1)]
        while batch:
            yield batch, self._acted(batch, observe)
            batch = list(islice(remaining, size))

    def _acted(self, rows: list[Row], observe: Observe | None) -> Tensor:
        longest = max(len(row.ids) for row in rows)
        ids = torch.tensor([[*row.ids, *[row.ids[-1]] * (longest - len(row.ids))] for row in rows])
        is_text = torch.arange(longest) < torch.tensor([len(row.ids) for row in rows])[:, None]
        counts = is_text.clone()
        counts[:, 0] = False
        found: dict[Place, Tensor] = {}
        last = max(self._sites)

        def see(place: Place, h: Tensor) -> None:
            here = acting(self._sites[place], h).cpu() & counts[..., None]
            found[place] = here.sum(dim=1)
            if observe is not None:
                observe(place, h[is_text.to(h.device)])
            if place == last:
                raise StopEarly

        with (
            torch.inference_mode(),
            hooked(self._model, self._intervention),
            seeing(self._model, list(self._sites), see),
            suppress(StopEarly),
        ):
            self._model.base_model(ids.to(self._model.device), use_cache=False)
        return torch.cat([found[place] for place in self._sites], dim=1)
