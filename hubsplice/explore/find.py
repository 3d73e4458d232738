"""Which features are of a text: against neutral text, or against a second set of examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from hubsplice.errors import RecipeError
from hubsplice.explore.bench import Bench
from hubsplice.explore.contexts import context
from hubsplice.explore.examples import Example
from hubsplice.explore.found import Found, FoundFeature
from hubsplice.explore.passes import Reader, Seen
from hubsplice.explore.ranking import (
    SHUFFLES,
    auc,
    effect_size,
    information,
    largest_by_chance,
    steady_gap,
)
from hubsplice.explore.tallies import Pooled, Tally
from hubsplice.terminal import Progress

Pool = Literal["max", "mean"]

_FEWEST_EXAMPLES = 4
_FEWEST_TOKENS = 20
_TOLD_BY_LENGTH = 0.8
_SEED = 0


def against_neutral(
    bench: Bench,
    examples: Sequence[Example],
    neutral: Sequence[Example],
    *,
    top: int,
    progress: Progress,
) -> Found:
    """The features whose firing tells the text from neutral text, the most telling first.

    Args:
        bench: model and SAEs.
        examples: the text.
        neutral: text of many kinds.
        top: how many features are wanted.
        progress: told how far it is.
    """
    reader = Reader(bench.model, bench.saes)
    here = [Tally(placed) for placed in bench.saes]
    there = [Tally(placed) for placed in bench.saes]
    # The neutral text first: it says what an attention sink is.
    reader.read(neutral, _into(there), partial(progress, "reading neutral text"))
    reader.read(examples, _into(here), partial(progress, "reading the text"))
    scores = [
        1000 * information(mine.active, mine.tokens, other.active, other.tokens)
        for mine, other in zip(here, there, strict=True)
    ]
    best = _best(scores, scores, top)
    warnings = list(bench.warnings)
    if here[0].tokens < _FEWEST_TOKENS:
        warnings.append(f"{here[0].tokens} tokens say little; give a longer text")
    return _found(
        bench,
        examples,
        neutral,
        "neutral text",
        here,
        there,
        [
            _feature(bench, examples, here, there, sae, index, float(scores[sae][index]))
            for sae, index in best
            if scores[sae][index] > 0
        ],
        warnings,
    )


def between(
    bench: Bench,
    positive: Sequence[Example],
    negative: Sequence[Example],
    *,
    pool: Pool,
    top: int,
    progress: Progress,
) -> Found:
    """The features that are larger in the first set than in the second, by AUC.

    Args:
        bench: model and SAEs.
        positive: the first set, four examples or more.
        negative: the second, likewise.
        pool: what an example's value is: the largest activation in it, or their mean.
        top: how many features are wanted.
        progress: told how far it is.

    Raises:
        RecipeError: there are too few examples.
    """
    for option, given in (("--positive", positive), ("--negative", negative)):
        if len(given) < _FEWEST_EXAMPLES:
            raise RecipeError(
                f"{option}: found {len(given)} examples, expected at least {_FEWEST_EXAMPLES}"
            )
    reader = Reader(bench.model, bench.saes)
    pooled = []
    for name, given in (("positive", positive), ("negative", negative)):
        each = [Pooled(placed, len(given), pool) for placed in bench.saes]
        reader.read(given, _into(each), partial(progress, f"reading the {name} examples"))
        pooled.append(each)
    ours, theirs = pooled
    scores, order, chance = [], [], torch.zeros(SHUFFLES, dtype=torch.float64)
    for mine, other in zip(ours, theirs, strict=True):
        scores.append(auc(mine.values, other.values))
        order.append(steady_gap(mine.values, other.values))
        # The same shuffles for every SAE, so that the largest of all is meant.
        chance = torch.maximum(chance, largest_by_chance(mine.values, other.values, seed=_SEED))
    here, there = [each.tally for each in ours], [each.tally for each in theirs]
    features = []
    for sae, index in _best(scores, order, top):
        score = float(scores[sae][index])
        if score <= 0.5:
            break
        column = slice(index, index + 1)
        effect = effect_size(ours[sae].values[:, column], theirs[sae].values[:, column])
        by_chance = float((1 + (chance >= score - 1e-12).sum()) / (1 + SHUFFLES))
        features.append(
            _feature(bench, positive, here, there, sae, index, score, float(effect), by_chance)
        )
    warnings = [*bench.warnings, *_length_doubts(positive, negative)]
    return _found(bench, positive, negative, "the second set", here, there, features, warnings)


def _length_doubts(positive: Sequence[Example], negative: Sequence[Example]) -> Iterator[str]:
    lengths = [
        torch.tensor([[float(e.end - e.start)] for e in given]) for given in (positive, negative)
    ]
    told = float(auc(*lengths))
    if max(told, 1 - told) > _TOLD_BY_LENGTH:
        longer = "positive" if told > 0.5 else "negative"
        yield (
            f"the {longer} examples are longer: their length alone tells the sets apart with an "
            f"AUC of {max(told, 1 - told):.2f}, and a feature may only follow that"
        )


def _best(scores: list[Tensor], order: list[Tensor], top: int) -> list[tuple[int, int]]:
    """SAEs and features by their score, equal ones by their order."""
    places = [(sae, index) for sae, found in enumerate(scores) for index in range(len(found))]
    score, second = torch.cat(scores), torch.cat(order)
    # Two stable sorts: the second key first.
    by_second = second.argsort(descending=True, stable=True)
    by_score = score[by_second].argsort(descending=True, stable=True)
    return [places[i] for i in by_second[by_score][:top].tolist()]


def _feature(
    bench: Bench,
    examples: Sequence[Example],
    here: Sequence[Tally],
    there: Sequence[Tally],
    sae: int,
    index: int,
    score: float,
    effect: float | None = None,
    chance: float | None = None,
) -> FoundFeature:
    placed, mine, other = bench.saes[sae], here[sae], there[sae]
    example = examples[int(mine.example[index])]
    return FoundFeature(
        sae=sae,
        origin=placed.sae.config.origin,
        place=str(placed.place),
        feature=index,
        score=score,
        active=int(mine.active[index]) / max(1, mine.tokens),
        elsewhere=int(other.active[index]) / max(1, other.tokens),
        mean=float(mine.mean[index]),
        largest=float(mine.largest[index]),
        texts=int(mine.texts[index]),
        effect=effect,
        chance=chance,
        context=context(bench.tokenizer, example, int(mine.position[index])),
        link=placed.link(index),
    )


def _found(
    bench: Bench,
    examples: Sequence[Example],
    compared: Sequence[Example],
    name: str,
    here: Sequence[Tally],
    there: Sequence[Tally],
    features: Sequence[FoundFeature],
    warnings: Sequence[str],
) -> Found:
    return Found(
        base_model=bench.base_model,
        revision=bench.revision,
        saes=tuple(placed.source for placed in bench.saes),
        examples=len(examples),
        tokens=here[0].tokens,
        compared=name,
        compared_examples=len(compared),
        compared_tokens=there[0].tokens,
        searched=sum(placed.sae.config.d_sae for placed in bench.saes),
        features=tuple(features),
        warnings=tuple(warnings),
    )


def _into(tallies: Sequence[Tally] | Sequence[Pooled]) -> Callable[[Seen], None]:
    return lambda seen: tallies[seen.sae].add(seen)
