"""Answers of a model, several conversations and edits in one batch, with random numbers shared.

A row of a batch is a conversation and an edit. Rows with the same key draw the same random numbers
at the same step, whatever else is in the batch: two edits of one prompt part only where the edit
moves a probability, and not by luck.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from hubsplice.errors import RecipeError
from hubsplice.intervention.intervention import Intervention
from hubsplice.streams.model import Model, hooked_rows


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        max_new_tokens: the most tokens of one answer.
        temperature: of the sampling; 0 always takes the most probable token.
        top_p: the share of probability that is drawn from, the most probable tokens first.
        seed: of the random numbers.
    """

    max_new_tokens: int = 80
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        problems = (
            (self.max_new_tokens >= 1, "--max-new-tokens", self.max_new_tokens, "1 or more"),
            (self.temperature >= 0, "--temperature", self.temperature, "0 or more"),
            (0 < self.top_p <= 1, "--top-p", self.top_p, "above 0 and at most 1"),
            (self.seed >= 0, "--seed", self.seed, "0 or more"),
        )
        for fine, option, found, expected in problems:
            if not fine:
                raise RecipeError(f"{option}: found {found}, expected {expected}")


@dataclass(frozen=True, eq=False)
class Asked:
    """One row.

    Attributes:
        ids: the prompt's tokens, at least one.
        edit: what is done to it; None for the base.
        key: rows with the same key share their random numbers.
    """

    ids: tuple[int, ...]
    edit: Intervention | None
    key: str


@dataclass(frozen=True, eq=False)
class Generated:
    """One answer.

    Attributes:
        ids: its tokens, without the one that ended it.
        ended: whether the model ended it.
        watched: the probability that the answer's first token was one of those watched for.
    """

    ids: tuple[int, ...]
    ended: bool
    watched: tuple[float, ...] = ()


def generate(
    model: Model,
    asked: Sequence[Asked],
    sampling: Sampling,
    ends: frozenset[int],
    *,
    watched: Sequence[Sequence[int]] = (),
    see: Callable[[int, int], None] | None = None,
) -> list[Generated]:
    """Continue every row.

    Args:
        model: the base.
        asked: the rows.
        sampling: how tokens are drawn.
        ends: tokens that end an answer.
        watched: sets of tokens whose probability as the answer's first is wanted.
        see: told of every token as it is drawn: its row, and which it is.
    """
    ids, mask = _left_padded(asked, model.device)
    drawn: list[list[int]] = [[] for _ in asked]
    ended = [False] * len(asked)
    first: list[tuple[float, ...]] = [() for _ in asked]
    cache = {_cache_name(model): DynamicCache(config=model.config.get_text_config())}
    position = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with torch.inference_mode(), hooked_rows(model, [row.edit for row in asked]):
        for step in range(sampling.max_new_tokens):
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=position,
                use_cache=True,
                logits_to_keep=1,
                **cache,
            )
            logits = output.logits[:, -1].float().cpu()
            if step == 0 and watched:
                probability = logits.softmax(dim=-1)
                sums = torch.stack([probability[:, list(one)].sum(dim=1) for one in watched], dim=1)
                first = [tuple(row) for row in sums.tolist()]
            chosen = _chosen(logits, [row.key for row in asked], sampling, step)
            for row, token in enumerate(chosen.tolist()):
                if ended[row]:
                    continue
                ended[row] = token in ends
                if not ended[row]:
                    drawn[row].append(token)
                    if see is not None:
                        see(row, token)
            if all(ended):
                break
            ids = chosen[:, None].to(model.device)
            mask = torch.cat([mask, mask.new_ones(len(asked), 1)], dim=1)
            position = position[:, -1:] + 1
    return [
        Generated(tuple(tokens), end, seen)
        for tokens, end, seen in zip(drawn, ended, first, strict=True)
    ]


def _cache_name(model: Model) -> str:
    """What a model calls its keys and values, which newer versions of transformers renamed."""
    names = inspect.signature(model.forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def _left_padded(asked: Sequence[Asked], device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(len(row.ids) for row in asked)
    ids = [[row.ids[0]] * (longest - len(row.ids)) + list(row.ids) for row in asked]
    mask = [[0] * (longest - len(row.ids)) + [1] * len(row.ids) for row in asked]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _chosen(logits: Tensor, keys: Sequence[str], sampling: Sampling, step: int) -> Tensor:
    """One token for each row of logits [rows, vocabulary]."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    scaled = _nucleus(logits / sampling.temperature, sampling.top_p)
    # The largest of log-probability plus Gumbel noise is a draw from the distribution.
    noise = {key: _gumbel(key, sampling.seed, step, logits.shape[1]) for key in set(keys)}
    return (scaled + torch.stack([noise[key] for key in keys])).argmax(dim=-1)


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    if top_p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
    ordered = ordered.masked_fill(before >= top_p, -torch.inf)
    return torch.empty_like(logits).scatter_(-1, order, ordered)


def _gumbel(key: str, seed: int, step: int, size: int) -> Tensor:
    digest = hashlib.sha256(f"{seed} {step} {key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    uniform = torch.rand(size, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    return -(-uniform.log()).log().float()
