"""A recipe to play with: its strengths are turned, and base and edits answer one question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from hubsplice.compiling.open_plan import OpenPlan, open_plan
from hubsplice.compiling.plan import make_plan
from hubsplice.explore.answers import BEFORE, Compared
from hubsplice.explore.dials import Dial, dials, turned
from hubsplice.explore.gauges import Gauge, Reading, gauges, read
from hubsplice.explore.generating import Sampling
from hubsplice.explore.quick import QuickHooks
from hubsplice.explore.trial import Trial
from hubsplice.recipe.models import Recipe
from hubsplice.streams.model import Model, loaded
from hubsplice.terminal import Progress
from hubsplice.text.ends import end_tokens
from hubsplice.text.tokenizer import load_tokenizer

AFTER = "edited"


@dataclass(frozen=True)
class Played:
    """Answers of the base and of the edits, as far as they are.

    Attributes:
        compared: the answers, the base's first.
        readings: for each answer, once all are whole, what the gauges read in prompt and answer.
        warnings: of the recipe as it was turned.
        whole: whether nothing more comes.
    """

    compared: Compared
    readings: tuple[tuple[Reading, ...], ...] = ()
    warnings: tuple[str, ...] = ()
    whole: bool = False


class Workbench:
    """A base in memory, and a recipe whose strengths are turned."""

    def __init__(
        self,
        plan: OpenPlan,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        *,
        plain: bool,
        progress: Progress,
    ) -> None:
        self._plan, self._model, self._tokenizer = plan, model, tokenizer
        self._plain = plain
        self._hooks = QuickHooks(plan, model, tokenizer, [plan.recipe], progress)
        self._ends = end_tokens(tokenizer, plan.resolved.folder)
        first = self._hooks.hook(plan.recipe)
        largest = {
            int(name.removeprefix("feature ")): activity.maximum
            for splice in first.splices
            for name, activity in splice.statistics.activity.items()
        }
        self.dials: tuple[Dial, ...] = dials(plan.recipe, largest)
        self.warnings: tuple[str, ...] = (*plan.plan.warnings, *first.warnings)
        self._gauges: tuple[Gauge, ...] = gauges(plan, first.splices)

    @property
    def base_model(self) -> str:
        """The base's id on the Hub, or its folder's name."""
        return self._plan.resolved.repo_id or self._plan.resolved.folder.name

    def ask(
        self,
        prompt: str,
        values: Sequence[float],
        sampling: Sampling,
        show: Callable[[Played], None],
    ) -> Played:
        """Answers of the base and of the recipe as the dials have it.

        Args:
            prompt: the question.
            values: what the dials are at, in their order.
            sampling: how answers are drawn.
            show: told of the answers as they grow; what it raises ends them.

        Raises:
            RecipeError: a strength can't be had, or the prompt is refused or has no tokens.
        """
        hook = self._hooks.hook(turned(self._plan.recipe, self.dials, values))
        edits = [(BEFORE, None), (AFTER, hook.intervention)]
        trial = Trial(
            self._model, self._tokenizer, edits, sampling, self._ends, (), plain=self._plain
        )
        asked = trial.prompt_ids(prompt)
        drawn: list[list[int]] = [[] for _ in edits]
        compared = trial.ask(
            prompt,
            show=lambda growing: show(Played(growing)),
            see=lambda row, token: drawn[row].append(token),
        )
        readings = tuple(
            read(self._model, self._tokenizer, [*asked, *answer], len(asked), edit, self._gauges)
            for answer, (_, edit) in zip(drawn, edits, strict=True)
        )
        return Played(compared, readings, hook.warnings, whole=True)


@contextmanager
def workbench(recipe: Recipe, *, plain: bool, progress: Progress) -> Iterator[Workbench]:
    """Load a recipe's base, and make its edits ready.

    Args:
        recipe: the recipe.
        plain: whether prompts are continued as they are, without the chat template.
        progress: told how far it is, until the edits are ready.

    Raises:
        HubspliceError: the recipe is wrong, or something that it names is missing or damaged.
    """
    plan = open_plan(make_plan(recipe))
    tokenizer = load_tokenizer(plan.resolved.folder)
    progress("loading the model", 0, 1)
    with loaded(plan.resolved.folder, torch.float32) as model:
        progress("loading the model", 1, 1)
        yield Workbench(plan, model, tokenizer, plain=plain, progress=progress)
