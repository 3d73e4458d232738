"""Directions and probes that are learned from examples, on the base, where they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hubsplice.errors import HubspliceError, RecipeError
from hubsplice.features.base import Probe
from hubsplice.features.contrast import Contrast, contrast, logistic_probe
from hubsplice.features.examples import ContrastSource, Examples, LearnedProbe
from hubsplice.features.prompt import Prompt
from hubsplice.intervention.place import Place
from hubsplice.recipe.models import Splice
from hubsplice.recipe.problems import field_path
from hubsplice.streams.calibration import median_norm
from hubsplice.streams.model import Model, collect_streams
from hubsplice.text.examples import SIDES, example_prompts, example_rows
from hubsplice.text.rows import Row, padded


@dataclass(frozen=True, eq=False)
class Learned:
    """What was learned from the examples of one splice, by what the recipe says of them."""

    contrasts: Mapping[ContrastSource, Contrast] = field(default_factory=dict)
    probes: Mapping[LearnedProbe, Probe] = field(default_factory=dict)


def learn(
    splices: Sequence[tuple[str, Splice, Place]],
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    progress: Callable[[str, int, int], None],
) -> tuple[Learned, ...]:
    """Learn all directions and probes of some splices.

    The base reads the examples as it is, also where an earlier splice edits it.

    Args:
        splices: how messages call each, the splice, and its place.
        model: the base in float32, without hooks.
        tokenizer: the base's.
        progress: told of the step and how many prompts are done.

    Raises:
        RecipeError: examples that can't be read, or that have no direction.
    """
    found = []
    for name, splice, place in splices:
        contrasts: dict[ContrastSource, Contrast] = {}
        probes: dict[LearnedProbe, Probe] = {}
        for edit_field, source in examples_in(splice.edits, f"{name}.edits"):
            if source in contrasts or source in probes:
                continue
            with_sides = _read_out(
                source, edit_field, place, splice.sink_multiple, model, tokenizer, progress
            )
            try:
                if isinstance(source, ContrastSource):
                    sides = [torch.stack([h.mean(dim=0) for h in side]) for side in with_sides]
                    contrasts[source] = contrast(sides[0], sides[1], source.method)
                elif isinstance(source, LearnedProbe):
                    sides = [torch.cat(side) for side in with_sides]
                    probes[source] = logistic_probe(source.title, sides[0], sides[1])
            except HubspliceError as error:
                raise error.inside(edit_field) from None
        found.append(Learned(contrasts, probes))
    return tuple(found)


def examples_in(value: Any, at: str) -> Iterator[tuple[str, Examples]]:
    """Every set of examples in a part of a recipe, and how messages call it."""
    if isinstance(value, Examples):
        yield at, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from examples_in(getattr(value, name), f"{at}.{name}")
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from examples_in(item, field_path((at, i)))


def checked_examples(source: Examples) -> tuple[tuple[Prompt, ...], ...]:
    """The positive and the negative prompts, checked as far as that needs no model.

    Raises:
        RecipeError: a file that is missing or no list of prompts, the same prompts on both sides,
            or unequal numbers for `pca`.
    """
    what = "contrast" if isinstance(source, ContrastSource) else "probe"
    positive, negative = example_prompts(source, what)
    if positive == negative:
        raise RecipeError(f"{what}: the positive and the negative examples are the same")
    paired = isinstance(source, ContrastSource) and source.method == "pca"
    if paired and len(positive) != len(negative):
        raise RecipeError(
            f"{what}: found {len(positive)} positive and {len(negative)} negative prompts; "
            "`method: pca` compares the n-th of the one with the n-th of the other, and needs as "
            "many of both"
        )
    return positive, negative


def _read_out(
    source: Examples,
    at: str,
    place: Place,
    sink_multiple: float,
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    progress: Callable[[str, int, int], None],
) -> list[list[Tensor]]:
    """For each side, what is read of each prompt, shape [tokens, d], sinks left out."""
    rows: list[Row] = []
    counts = []
    for name, prompts in zip(SIDES, checked_examples(source), strict=True):
        rows += example_rows(prompts, f"{at}.{name}", tokenizer)
        counts.append(len(prompts))
    ids, lengths = padded(rows, max(len(row.ids) for row in rows))
    _require_ids(ids, at, model)
    streams = collect_streams(
        model, ids, [place], lambda done, total: progress("reading examples", done, total)
    )[place]
    tokens = [h[:length].float() for h, length in zip(streams, lengths.tolist(), strict=True)]
    most = sink_multiple * median_norm(torch.cat(tokens))
    read = []
    for i, h in enumerate(tokens):
        chosen = h[-1:] if source.read == "last" else h
        chosen = chosen[torch.linalg.vector_norm(chosen, dim=-1) <= most]
        if not len(chosen):
            side, index = (SIDES[0], i) if i < counts[0] else (SIDES[1], i - counts[0])
            raise RecipeError(
                f"{at}.{side}[{index}]: nothing but attention sinks is read of it; give a longer "
                "prompt, or `read: all`"
            )
        read.append(chosen)
    return [read[: counts[0]], read[counts[0] :]]


def _require_ids(ids: Tensor, at: str, model: Model) -> None:
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and ids.shape[1] > most:
        raise RecipeError(
            f"{at}: found a prompt of {ids.shape[1]} tokens, expected at most {most}, the number "
            "of positions that the base has"
        )
