"""What is said of a recipe that would build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hubsplice.compiling.cost import BuildCost
from hubsplice.compiling.plan import Plan, PlannedSplice, make_plan
from hubsplice.edits.base import Edit
from hubsplice.features import neuronpedia
from hubsplice.features.amounts import EditAmounts
from hubsplice.features.sae_config import FoundSae
from hubsplice.intervention.place import Place
from hubsplice.recipe.models import Recipe
from hubsplice.rendering.content import Line, Part, Table, Tone
from hubsplice.rendering.rendered import Rendered

_TWO_LAYERS = (
    "A layer adds up functions of one read-out each. An edit of one read-out where another one is "
    "above a value is no such function. So one layer marks the tokens at which the condition "
    "holds, and the next one edits them."
)
_NO_TEXT = (
    "No text is read here, so that it is not known on how many tokens conditions hold: "
    "`hubsplice try` says it of prompts and answers, `hubsplice build` of the calibration text."
)


@dataclass(frozen=True)
class SaeSummary:
    """An SAE, as its configuration describes it.

    Attributes:
        origin: where it comes from.
        architecture: SAELens's name for its kind.
        d_in: the width of the stream that it reads.
        d_sae: how many features it has.
        page: its page on Neuronpedia, as far as SAELens's registry knows.
    """

    origin: str
    architecture: str
    d_in: int
    d_sae: int
    page: str | None = None

    def __str__(self) -> str:
        shown = "" if self.page is None else f", on Neuronpedia {self.page}"
        return f"{self.origin}{shown}"


@dataclass(frozen=True)
class SpliceSummary:
    """One splice that would build.

    Attributes:
        place: where the stream would be edited.
        sae: the SAE; None for a splice of vectors and probes alone.
        edits: how many edits there are of each kind.
        features: how many different features of it they read or write.
        gate_saes: the SAEs that only conditions read.
    """

    place: Place
    sae: SaeSummary | None
    edits: Mapping[str, int]
    features: int
    gate_saes: tuple[SaeSummary, ...] = ()


@dataclass(frozen=True, repr=False)
class CheckReport(Rendered):
    """A recipe that would build.

    Attributes:
        base_model: as the recipe names it.
        commit: the base's commit on the Hub; None for a local folder.
        model_type: the family, as the base's configuration names it.
        num_layers: the base's number of decoder layers.
        hidden_size: the width of its residual stream.
        splices: in the recipe's order.
        warnings: what builds, and may not be what was meant.
        amounts: what strengths come to, as far as the recipe alone says, in its order.
        cost: what the build would take; None where that was not asked, or could not be said.
        conditions: what reports call the edits under conditions.
        in_two_layers: those of them that take two layers.
    """

    base_model: str
    commit: str | None
    model_type: str
    num_layers: int
    hidden_size: int
    splices: tuple[SpliceSummary, ...]
    warnings: tuple[str, ...]
    amounts: tuple[EditAmounts, ...] = ()
    cost: BuildCost | None = None
    conditions: tuple[str, ...] = ()
    in_two_layers: tuple[str, ...] = ()

    @staticmethod
    def of(plan: Plan, cost: BuildCost | None = None) -> CheckReport:
        """What there is to say of a plan."""
        # In the order of the recipe, in which its author looks for them.
        in_order = sorted(plan.splices, key=lambda planned: planned.index)
        return CheckReport(
            base_model=plan.recipe.base_model,
            commit=plan.resolved.commit,
            model_type=plan.architecture.family.model_type,
            num_layers=plan.architecture.num_layers,
            hidden_size=plan.architecture.hidden_size,
            splices=tuple(map(_summary, in_order)),
            warnings=plan.warnings,
            amounts=plan.amounts,
            cost=cost,
            conditions=tuple(label for planned in in_order for label in planned.conditions),
            in_two_layers=tuple(label for planned in in_order for label in planned.in_two_layers),
        )

    def content(self) -> Iterable[Part]:
        """That it would build, the warnings, and what is spliced where."""
        yield Line("The recipe would build.", Tone.GOOD)
        for warning in self.warnings:
            yield Line(f"warning: {warning}", Tone.CAUTION)
        yield from self.findings()

    def findings(self) -> Iterable[Part]:
        """What is spliced where, what the strengths come to, and what the build would take."""
        yield self.table
        saes = [sae for s in self.splices for sae in (s.sae, *s.gate_saes) if sae is not None]
        yield from map(Line, dict.fromkeys(map(str, saes)))
        yield from (Line(str(amounts)) for amounts in self.amounts)
        if self.in_two_layers:
            yield from (Line(f"{label}: two layers") for label in self.in_two_layers)
            yield Line(_TWO_LAYERS)
        if self.conditions:
            yield Line(_NO_TEXT)
        if self.cost is not None:
            yield from self.cost.content()

    @property
    def table(self) -> Table:
        """What is spliced where."""
        return Table.of_text(
            ("after layer", "SAE", "features", "edits"),
            tuple(
                (
                    str(splice.place),
                    f"{splice.sae.architecture}, {splice.sae.d_sae}" if splice.sae else "none",
                    str(splice.features),
                    ", ".join(f"{n} {kind}" for kind, n in splice.edits.items()) or "none",
                )
                for splice in self.splices
            ),
            f"{self.base_model}: {self.model_type}, {self.num_layers} layers, "
            f"hidden size {self.hidden_size}",
        )


def check(recipe: Recipe) -> CheckReport:
    """Check a recipe against the configurations of its base model and SAEs.

    Raises:
        HubspliceError: as `make_plan` does.
    """
    return CheckReport.of(make_plan(recipe))


def _summary(planned: PlannedSplice) -> SpliceSummary:
    edits: tuple[Edit, ...] = planned.splice.edits
    return SpliceSummary(
        place=planned.place,
        sae=None if planned.sae is None else _sae_summary(planned.sae),
        edits=dict(sorted(Counter(edit.kind for edit in edits).items())),
        features=len({index for edit in edits for index in edit.all_indices()}),
        gate_saes=tuple(map(_sae_summary, planned.gate_saes.values())),
    )


def _sae_summary(sae: FoundSae) -> SaeSummary:
    config, name = sae.config, sae.neuronpedia
    return SaeSummary(
        config.origin,
        config.architecture,
        config.d_in,
        config.d_sae,
        None if name is None else neuronpedia.page(name),
    )
