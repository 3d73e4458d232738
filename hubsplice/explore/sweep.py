"""Strengths of one edit, each scored on the same prompts and measured on neutral text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hubsplice.compiling.open_plan import OpenPlan, open_plan
from hubsplice.compiling.plan import make_plan
from hubsplice.edits.strength import Amount
from hubsplice.errors import RecipeError
from hubsplice.explore.generating import Sampling
from hubsplice.explore.harness import Harness
from hubsplice.explore.intervals import mean
from hubsplice.explore.neutral import divergence, neutral_text, reading
from hubsplice.explore.questions import Questions, Worth
from hubsplice.explore.quick import QuickHooks
from hubsplice.explore.record import Record, key_of
from hubsplice.explore.scorers.base import Scorer
from hubsplice.explore.swept import Point, SideEffect, Sweep, Want, judged
from hubsplice.fidelity.divergence import Readable
from hubsplice.fidelity.effect import text_loss
from hubsplice.files.digest import digest_file
from hubsplice.files.plain import is_plain
from hubsplice.intervention.intervention import NO_EDIT, Intervention
from hubsplice.recipe.local_paths import local_paths
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.strengths import Knob, knob, with_strength
from hubsplice.streams.model import Model, hooked, loaded
from hubsplice.terminal import Progress
from hubsplice.text.ends import end_tokens
from hubsplice.text.tokenizer import load_tokenizer

_BASE = "base"


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
        harness: tasks that are side effects too; None for none.
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
    harness: Harness | None = None


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
    values = _values(found, asking)
    planned = make_plan(recipe)
    # Its recipe names everything by what was found.
    variants = _variants(planned.recipe, found, values, asking.layers)
    plan = open_plan(planned)
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


def _values(found: Knob, asking: Asking) -> list[Amount | float]:
    if not asking.strengths:
        raise RecipeError("--strengths: none; give A,B,… or A:B:N")
    return [found.parse(text) for text in asking.strengths]


def _variants(
    recipe: Recipe, found: Knob, values: Sequence[Amount | float], layers: Sequence[int]
) -> list[_Variant]:
    made = [_Variant(_BASE, None, None)]
    places: list[int | None] = [*layers] or [None]
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
    """One sweep's model, questions and text."""

    def __init__(
        self,
        plan: OpenPlan,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        asking: Asking,
        record: Record,
        progress: Progress,
    ) -> None:
        self._model, self._record, self._progress = model, record, progress
        self._tokenizer, self._harness = tokenizer, asking.harness
        self._base = [
            plan.recipe.base_model,
            plan.recipe.revision,
            [None if sae is None else sae.sha256 for sae in plan.saes],
            _digests(plan.recipe),
        ]
        self._ends = end_tokens(tokenizer, plan.resolved.folder)
        self._questions = Questions(
            tokenizer,
            asking.prompts,
            asking.scorers,
            asking.sampling,
            plain=asking.plain,
            record=record,
        )
        self._neutral = neutral_text(asking.neutral_tokens, tokenizer)
        self._reference: Readable | None = None

    @property
    def neutral_tokens(self) -> int:
        return self._neutral.tokens

    def point(self, variant: _Variant, edit: Intervention | None) -> Point:
        """One strength; what the record knows is not computed again."""
        worth = self._worth(variant, edit)
        neutral = self._side_effects(variant, edit)
        moved = mean(neutral["divergence"])
        assert moved is not None
        return Point(
            name=variant.name,
            layer=variant.layer,
            scores=worth.scores,
            divergence=moved,
            perplexity=float(torch.tensor(neutral["loss"], dtype=torch.float64).exp()),
            distinct=worth.distinct,
            length=worth.length,
            side_effects=tuple(self._in_harness(variant, edit)),
        )

    def _worth(self, variant: _Variant, edit: Intervention | None) -> Worth:
        keys = self._questions.keys(self._base, variant.known_by)
        step = f"answers: strength {variant.name}" + (
            "" if variant.layer is None else f", layer {variant.layer}"
        )
        self._questions.ask(
            self._model,
            keys,
            edit,
            self._ends,
            lambda done, total: self._progress(step, done, total),
            strength=variant.name,
            layer=variant.layer,
        )
        return self._questions.worth(keys)

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
        with hooked(self._model, edit):
            read = self._read(f"neutral text: strength {variant.name}")
        return self._record.add(
            key,
            kind="neutral",
            strength=variant.name,
            layer=variant.layer,
            divergence=divergence(read, base),
            loss=text_loss(read, self._neutral.ids),
        )

    def _in_harness(self, variant: _Variant, edit: Intervention | None) -> Iterator[SideEffect]:
        for task in () if self._harness is None else self._harness.tasks:
            assert self._harness is not None
            key = key_of(
                kind="task",
                base=self._base,
                edit=variant.known_by,
                task=self._harness.known_by(task),
            )
            line = self._record.get(key)
            if line is None:
                self._progress(f"tasks: strength {variant.name}, {task}", 0, 1)
                with hooked(self._model, edit or NO_EDIT):
                    lm = self._harness.wrapped(self._model, self._tokenizer)
                    figure = self._harness.run(lm, task).figures[0]
                line = self._record.add(key, kind="task", strength=variant.name, **asdict(figure))
            yield SideEffect(task, line["metric"], line["value"], line["stderr"])

    def _base_reading(self) -> Readable:
        if self._reference is None:
            self._reference = self._read("neutral text: base")
        return self._reference

    def _read(self, step: str) -> Readable:
        return reading(
            self._model,
            self._neutral.ids,
            lambda done, total: self._progress(step, done, total),
        )


def _digests(recipe: Recipe) -> dict[str, str]:
    """Of the local files that a recipe names: vectors, probes, examples and text."""
    paths = local_paths(recipe)
    return {field: digest_file(p).sha256 for field, p in paths.items() if is_plain(p)}
