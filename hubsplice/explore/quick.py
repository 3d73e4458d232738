"""Recipes as hooks in seconds: calibrated on little text, once for all strengths.

A build calibrates on more text, and searches for text on which each edit acts. A hook needs little
of it: the median norm of the stream, which says what an attention sink is and what `x norm` counts
in. Where a strength counts in a largest activation that the recipe does not state (`x max` without
`max`), little text would give another strength than the build: then all of it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hubsplice.compiling.calibrated import calibrate
from hubsplice.compiling.learned import Learned, examples_in, learn
from hubsplice.compiling.lowering import LoweredSplice, lower_splice
from hubsplice.compiling.open_plan import OpenPlan
from hubsplice.compiling.plan import PlannedSplice
from hubsplice.features.amounts import Activity
from hubsplice.features.examples import Examples
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.place import Place
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.strengths import counts_in_maximum
from hubsplice.streams.calibration import stream_at
from hubsplice.streams.model import Model
from hubsplice.terminal import Progress
from hubsplice.text.sequences import TokenSequences, open_text

QUICK_TOKENS = 2048


@dataclass(frozen=True, eq=False)
class Hook:
    """A recipe as the exact edit.

    Attributes:
        intervention: the edit.
        splices: what each splice came to, in the order of their places.
        warnings: what may not be meant, and what the edit does not reproduce.
    """

    intervention: Intervention
    splices: tuple[LoweredSplice, ...]
    warnings: tuple[str, ...]


class QuickHooks:
    """Turns variants of one recipe, which differ in strengths and layers, into hooks."""

    def __init__(
        self,
        plan: OpenPlan,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        variants: Sequence[Recipe],
        progress: Progress,
    ) -> None:
        """Read the text that the variants are calibrated on.

        Args:
            plan: the recipe's.
            model: the base in float32.
            tokenizer: its tokenizer.
            variants: all that will be asked for; they say how much text is needed.
            progress: told how far it is.

        Raises:
            HubspliceError: the text can't be read, or the recipe can't be lowered.
        """
        self._plan, self._model, self._progress = plan, model, progress
        self._tokenizer = tokenizer
        self._learned: dict[tuple[Place, frozenset[Examples]], Learned] = {}
        self._seen: dict[Place, Mapping[str, Activity]] = {}
        self._streams: dict[Place, Tensor] = {}
        if any(map(counts_in_maximum, variants)):
            found = calibrate(plan, progress)
            self._text = found.text.sequences
            self._seen = {s.site.place: s.statistics.activity for s in found.splices}
        else:
            self._text = _little(plan, tokenizer)

    def hook(self, recipe: Recipe) -> Hook:
        """A variant's edit, as the base in float32 makes it.

        Raises:
            HubspliceError: it can't be lowered, one line per problem.
        """
        lowered: list[LoweredSplice] = []
        variants = [
            (_variant(planned, recipe), sae, gates)
            for planned, sae, gates in zip(
                self._plan.splices, self._plan.saes, self._plan.gate_saes, strict=True
            )
        ]
        for planned, sae, gates in sorted(variants, key=lambda variant: variant[0].place):
            earlier = Intervention(tuple(splice.site for splice in lowered))
            lowered.append(
                lower_splice(
                    planned.splice,
                    planned.place,
                    sae,
                    self._stream(planned.place, earlier),
                    planned.field,
                    drawn=self._text.drawn * self._text.ids.shape[1],
                    seen=self._seen.get(planned.place, {}),
                    learned=self._learn(planned),
                    gate_saes=gates,
                )
            )
        doubts = [d for splice in lowered for d in (*splice.approximations, *splice.warnings)]
        return Hook(
            Intervention(tuple(splice.site for splice in lowered)),
            tuple(lowered),
            tuple(dict.fromkeys(doubts)),
        )

    def _learn(self, planned: PlannedSplice) -> Learned:
        """What examples of a splice teach, once for all strengths."""
        sources = frozenset(source for _, source in examples_in(planned.splice.edits, ""))
        known = planned.place, sources
        if known not in self._learned:
            splice = (planned.field, planned.splice, planned.place)
            (self._learned[known],) = learn([splice], self._model, self._tokenizer, self._progress)
        return self._learned[known]

    def _stream(self, place: Place, earlier: Intervention) -> Tensor:
        if not earlier.sites and place in self._streams:
            return self._streams[place]
        h = stream_at(
            self._model,
            self._text.ids,
            [place],
            earlier,
            lambda done, total: self._progress(f"calibrating layer {place}", done, total),
        )[place][self._text.is_text.flatten()]
        if not earlier.sites:
            self._streams[place] = h
        return h


def _variant(planned: PlannedSplice, recipe: Recipe) -> PlannedSplice:
    splice = recipe.splices[planned.index]
    place = planned.place if splice.place is None else splice.place
    return replace(planned, splice=splice, place=place)


def _little(plan: OpenPlan, tokenizer: PreTrainedTokenizerBase) -> TokenSequences:
    asked = plan.recipe.calibration
    source = asked.model_copy(update={"tokens": min(asked.tokens, QUICK_TOKENS)})
    text = open_text(
        source,
        tokenizer,
        seed=plan.recipe.seed,
        part="calibration",
        prompts=plan.recipe.prompts,
    )
    return text.sequences(text.prompts)
