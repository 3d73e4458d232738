"""Strengths of one edit, each scored on the same prompts and measured on neutral text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hubsplice.compiling.open_plan import OpenPlan, open_plan
from hubsplice.compiling.plan import make_plan
from hubsplice.errors import RecipeError
from hubsplice.explore.generating import Asked, Sampling, end_tokens, generate
from hubsplice.explore.intervals import mean
from hubsplice.explore.quick import QuickHooks
from hubsplice.explore.record import Record, key_of
from hubsplice.explore.scorers.base import Scorable, Scorer
from hubsplice.explore.swept import Point, Sweep, Want, judged
from hubsplice.features.prompt import Prompt
from hubsplice.fidelity.divergence import Readable, compare
from hubsplice.fidelity.effect import text_loss
from hubsplice.fidelity.runs import head_weight, logit_scale, run_model
from hubsplice.files.digest import digest_file
from hubsplice.files.plain import is_plain
from hubsplice.intervention.intervention import Intervention
from hubsplice.recipe.local_paths import local_paths
from hubsplice.recipe.models import Recipe, TextSource
from hubsplice.recipe.strengths import Knob, knob, with_strength
from hubsplice.streams.model import Model, hooked, loaded
from hubsplice.terminal import Progress
from hubsplice.text.chat import has_template
from hubsplice.text.prompts import prompt_tokens
from hubsplice.text.sequences import load_sequences
from hubsplice.text.tokenizer import load_tokenizer

_BASE = "base"
_ROWS_AT_ONCE = 16
_SEQUENCE = 128
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, eq=False)
class Asking:
    """What a sweep asks.

    Attributes:
        edit: which edit is swept; None for the only one with a strength.
        strengths: what to set it to, as somebody writes it.
        layers: where, one after the other; empty for the recipe's own place.
        prompts: the questions.
        scorers: the scores; the first is the target.
        want: whether more or less of the target is wanted.
        sampling: how answers are drawn.
        plain: whether prompts are continued without the chat template.
        neutral_tokens: of the text on which side effects are measured.
    """

    edit: int | None
    strengths: Sequence[str]
    layers: Sequence[int]
    prompts: Sequence[str]
    scorers: Sequence[Scorer]
    want: Want
    sampling: Sampling
    plain: bool
    neutral_tokens: int


@dataclass(frozen=True, eq=False)
class _Variant:
    name: str
    layer: int | None
    recipe: Recipe | None

    @property
    def known_by(self) -> Any:
        """All that its edit depends on, as plain data."""
        if self.recipe is None:
            return None
        fields = self.recipe.model_dump(mode="json")
        return {name: fields[name] for name in ("splices", "calibration", "prompts", "seed")}


def sweep(recipe: Recipe, asking: Asking, answers: Path, progress: Progress) -> Sweep:
    """Sweep an edit's strengths.

    Args:
        recipe: the recipe.
        asking: what is asked.
        answers: the file with what was computed earlier, to which more is added.
        progress: told how far it is.

    Raises:
        HubspliceError: the recipe or what is asked is wrong, or something is missing or damaged.
    """
    found = knob(recipe, asking.edit)
    variants = _variants(recipe, found, asking)
    plan = open_plan(make_plan(recipe))
    warnings = list(plan.plan.warnings)
    for layer in asking.layers:
        warnings += make_plan(_at_layer(recipe, found, layer)).warnings
    record = Record(answers)
    tokenizer = load_tokenizer(plan.resolved.folder)
    progress("loading the model", 0, 1)
    with loaded(plan.resolved.folder, torch.float32) as model:
        progress("loading the model", 1, 1)
        run = _Run(plan, model, tokenizer, asking, record, progress)
        hooks = QuickHooks(
            plan, model, tokenizer, [v.recipe for v in variants if v.recipe is not None], progress
        )
        points = []
        for variant in variants:
            edit = None
            if variant.recipe is not None:
                hook = hooks.hook(variant.recipe)
                edit = hook.intervention
                warnings += [f"strength {variant.name}: {doubt}" for doubt in hook.warnings]
            points.append(run.point(variant, edit))
    edited = recipe.splices[found.splice].edits[found.edit]
    return Sweep(
        edit=found.path,
        label=edited.label or edited.kind,
        scorers=tuple(scorer.name for scorer in asking.scorers),
        want=asking.want,
        points=judged(tuple(points), asking.want),
        prompts=len(asking.prompts),
        neutral_tokens=run.neutral_tokens,
        answers=str(answers),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _variants(recipe: Recipe, found: Knob, asking: Asking) -> list[_Variant]:
    values = [found.parse(text) for text in asking.strengths]
    if not values:
        raise RecipeError("--strengths: none; give A,B,… or A:B:N")
    made = [_Variant(_BASE, None, None)]
    places: list[int | None] = [*asking.layers] or [None]
    for layer in places:
        placed = recipe if layer is None else _at_layer(recipe, found, layer)
        made += [
            _Variant(found.shown(value), layer, with_strength(placed, found, value))
            for value in values
        ]
    return made


def _at_layer(recipe: Recipe, found: Knob, layer: int) -> Recipe:
    """The recipe with the edit's splice after another layer."""
    splices = list(recipe.splices)
    moved = {"after_layer": layer, "after_attention": None}
    splices[found.splice] = splices[found.splice].model_copy(update=moved)
    return recipe.model_copy(update={"splices": tuple(splices)})


class _Run:
    """One sweep's model, prompts and text."""

    def __init__(
        self,
        plan: OpenPlan,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        asking: Asking,
        record: Record,
        progress: Progress,
    ) -> None:
        self._model, self._tokenizer, self._asking = model, tokenizer, asking
        self._record, self._progress = record, progress
        self._base = [
            plan.recipe.base_model,
            plan.recipe.revision,
            [None if sae is None else sae.sha256 for sae in plan.saes],
            _digests(plan.recipe),
        ]
        self._ends = end_tokens(model, tokenizer, plan.resolved.folder)
        self._as_question = has_template(tokenizer) and not asking.plain
        self._prompts = [self._ids(i, text) for i, text in enumerate(asking.prompts)]
        self._watched = [self._first_tokens(scorer) for scorer in asking.scorers]
        source = TextSource(tokens=asking.neutral_tokens, sequence_length=_SEQUENCE)
        self._neutral = load_sequences(source, tokenizer, seed=0, part="held-out")
        self._reference: Readable | None = None

    @property
    def neutral_tokens(self) -> int:
        return self._neutral.tokens

    def point(self, variant: _Variant, edit: Intervention | None) -> Point:
        """One strength; what the record knows is not computed again."""
        lines = self._answers(variant, edit)
        scored = [
            [
                self._score(scorer, Scorable(line["prompt"], line["text"], line["watched"][i]))
                for line in lines
            ]
            for i, scorer in enumerate(self._asking.scorers)
        ]
        neutral = self._side_effects(variant, edit)
        words = [_WORD.findall(line["text"].lower()) for line in lines]
        divergence, length = mean(neutral["divergence"]), mean([float(len(w)) for w in words])
        assert divergence is not None
        assert length is not None
        return Point(
            name=variant.name,
            layer=variant.layer,
            scores=tuple(mean([v for v in one if v is not None], shares=True) for one in scored),
            divergence=divergence,
            perplexity=float(torch.tensor(neutral["loss"], dtype=torch.float64).exp()),
            distinct=mean([share for w in words if (share := _distinct(w)) is not None]),
            length=length,
        )

    def _score(self, scorer: Scorer, answer: Scorable) -> float | None:
        if not scorer.costly:
            return scorer.score(answer)
        key = key_of(kind="score", scorer=scorer.model_dump(mode="json"), answer=asdict(answer))
        line = self._record.get(key)
        if line is None:
            line = self._record.add(key, kind="score", by=scorer.name, score=scorer.score(answer))
        known: float | None = line["score"]
        return known

    def _answers(self, variant: _Variant, edit: Intervention | None) -> list[dict[str, Any]]:
        keys = [
            key_of(
                kind="answer",
                base=self._base,
                edit=variant.known_by,
                sampling=asdict(self._asking.sampling),
                question=self._as_question,
                prompt=prompt,
                watched=self._watched,
            )
            for prompt in self._asking.prompts
        ]
        missing = iter([i for i, key in enumerate(keys) if self._record.get(key) is None])
        step = f"answers: strength {variant.name}" + (
            "" if variant.layer is None else f", layer {variant.layer}"
        )
        watched = [tokens or [0] for tokens in self._watched]
        while batch := list(islice(missing, _ROWS_AT_ONCE)):
            self._progress(step, batch[0], len(keys))
            asked = [Asked(self._prompts[i], edit, self._asking.prompts[i]) for i in batch]
            generated = generate(
                self._model, asked, self._asking.sampling, self._ends, watched=watched
            )
            for i, one in zip(batch, generated, strict=True):
                self._record.add(
                    keys[i],
                    kind="answer",
                    strength=variant.name,
                    layer=variant.layer,
                    prompt=self._asking.prompts[i],
                    text=self._tokenizer.decode(list(one.ids), skip_special_tokens=True).strip(),
                    ended=one.ended,
                    watched=list(one.watched),
                )
        self._progress(step, len(keys), len(keys))
        return [line for key in keys if (line := self._record.get(key)) is not None]

    def _side_effects(self, variant: _Variant, edit: Intervention | None) -> dict[str, Any]:
        key = key_of(
            kind="neutral",
            base=self._base,
            edit=variant.known_by,
            text=self._neutral.sha256,
        )
        known = self._record.get(key)
        if known is not None:
            return known
        if edit is None:
            loss = text_loss(self._base_reading(), self._neutral.ids)
            zero = [0.0] * len(self._neutral.ids)
            return self._record.add(key, kind="neutral", divergence=zero, loss=loss)
        base = self._base_reading()
        step = f"neutral text: strength {variant.name}"
        with hooked(self._model, edit):
            read = self._read(step)
        compared = compare(read, {"base": base})["base"].divergence[:, 1:]
        return self._record.add(
            key,
            kind="neutral",
            strength=variant.name,
            layer=variant.layer,
            divergence=compared.mean(dim=1).tolist(),
            loss=text_loss(read, self._neutral.ids),
        )

    def _base_reading(self) -> Readable:
        if self._reference is None:
            self._reference = self._read("neutral text: base")
        return self._reference

    def _read(self, step: str) -> Readable:
        hidden = run_model(
            self._model,
            self._neutral.ids,
            (),
            lambda done, total: self._progress(step, done, total),
        ).hidden
        return Readable(hidden, head_weight(self._model), logit_scale(self._model))

    def _ids(self, number: int, text: str) -> tuple[int, ...]:
        prompt = Prompt(user=text) if self._as_question else Prompt(text=text)
        _, ids = prompt_tokens(f"--prompts, prompt {number + 1}", prompt, self._tokenizer)
        return tuple(ids)

    def _first_tokens(self, scorer: Scorer) -> list[int]:
        """The tokens that each of a scorer's words can begin with, with and without a space."""
        found = set()
        for word in scorer.watched():
            for text in (word, f" {word}"):
                ids = self._tokenizer(text, add_special_tokens=False).input_ids
                found.update(ids[:1])
        return sorted(found)


def _digests(recipe: Recipe) -> dict[str, str]:
    """Of the local files that a recipe names: vectors, probes, examples and text."""
    paths = local_paths(recipe)
    return {field: digest_file(p).sha256 for field, p in paths.items() if is_plain(p)}


def _distinct(words: Sequence[str]) -> float | None:
    """The share of word triples that are not repeated; None for fewer than three words."""
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(triples)) / len(triples) if triples else None
