"""What a recipe asks for, resolved from configurations alone: no weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.layer_map import LayerMap
from hubsplice.checkpoint.resolve import ResolvedBase, resolve_base
from hubsplice.checkpoint.stock import require_stock
from hubsplice.compiling.base_sae import base_sae
from hubsplice.compiling.beforehand import beforehand
from hubsplice.compiling.carrying import in_bias
from hubsplice.compiling.conditional import require_two_layers
from hubsplice.compiling.gate_saes import gate_saes
from hubsplice.compiling.rehearsal import rehearse
from hubsplice.compiling.sae_dataset import with_sae_dataset
from hubsplice.errors import HubspliceError, RecipeError
from hubsplice.families.architecture import Architecture
from hubsplice.families.engines import EngineKey
from hubsplice.families.served import architecture_for
from hubsplice.features.amounts import EditAmounts
from hubsplice.features.references import SaeSource
from hubsplice.features.sae_config import FoundSae
from hubsplice.features.sae_match import match_warnings, site_place
from hubsplice.features.sae_support import config_warnings
from hubsplice.intervention.place import Place
from hubsplice.recipe.models import Recipe, Splice
from hubsplice.recipe.pinned import with_base_commit, with_edits, with_sae_commits, with_saes


@dataclass(frozen=True, eq=False)
class PlannedSplice:
    """A splice of the recipe with its place and its SAE.

    Attributes:
        index: which of the recipe's splices it is.
        splice: as the recipe has it, with the release and the id of an SAE that it names as
            Neuronpedia does.
        place: where the stream is edited.
        sae: the SAE, if it names one.
        in_bias: whether a bias of that layer carries it, and no layer is inserted.
        conditions: what reports call its edits under conditions.
        in_two_layers: those of them that need a layer which marks tokens, in front of the one that
            edits.
        gate_saes: the SAEs that only conditions read, by what they call them.
    """

    index: int
    splice: Splice
    place: Place
    sae: FoundSae | None
    in_bias: bool
    conditions: tuple[str, ...] = ()
    in_two_layers: tuple[str, ...] = ()
    gate_saes: Mapping[SaeSource, FoundSae] = dataclass_field(default_factory=dict)

    @property
    def saes(self) -> tuple[FoundSae, ...]:
        """All that it reads: its own, if it names one, and those that only conditions read."""
        own = () if self.sae is None else (self.sae,)
        return *own, *self.gate_saes.values()

    @property
    def conditional(self) -> bool:
        """Whether there is a layer that marks tokens, in front of the one that edits."""
        return bool(self.in_two_layers)

    def layers(self, architecture: Architecture) -> int:
        """How many decoder layers are inserted for it."""
        if self.in_bias:
            return 0
        return architecture.layers_per_splice(self.place) + self.conditional

    @property
    def field(self) -> str:
        """How messages call it."""
        return f"splices[{self.index}]"


@dataclass(frozen=True, eq=False)
class Plan:
    """A recipe whose sources are all known.

    Attributes:
        recipe: the recipe, with the name of the dataset where it says `sae`, with the release and
            the id of SAEs that it names as Neuronpedia does, and with the commits of the base and
            the SAEs that are on the Hub.
        resolved: where the base came from.
        base: what it says of itself.
        architecture: what it is.
        splices: in the order of their places.
        warnings: what builds, and may not be what was meant.
        amounts: what strengths come to, as far as the recipe alone says, in its order.
    """

    recipe: Recipe
    resolved: ResolvedBase
    base: BaseConfig
    architecture: Architecture
    splices: tuple[PlannedSplice, ...]
    warnings: tuple[str, ...]
    amounts: tuple[EditAmounts, ...]

    @property
    def layers(self) -> LayerMap:
        """Where each layer of the result comes from."""
        return self.architecture.layer_map(
            [
                splice.place
                for splice in self.splices
                for _ in range(splice.layers(self.architecture))
            ]
        )


def make_plan(recipe: Recipe) -> Plan:
    """Resolve everything that a recipe names, each source once.

    Steering vectors and probes, which are small, are read and checked in full. Of weights that
    are at hand, the headers are read; text is looked for, and not read.

    Raises:
        HubspliceError: everything that would stop the build, one line per problem, as the class
            of the first one: `RecipeError` for what the recipe gets wrong, `UnsupportedError` for
            a model or SAE that can't be spliced, `CheckpointError` for missing or damaged files.
    """
    resolved = resolve_base(recipe.base_model, recipe.revision, weights=False)
    if resolved.complete and resolved.repo_id is not None:
        # The folder's name, a commit's hash, says nothing to others.
        named = {"base_model": resolved.repo_id, "revision": resolved.commit}
        recipe = recipe.model_copy(update=named)
    base = BaseConfig.open(resolved.folder)
    architecture = architecture_for(base.config, [EngineKey(e) for e in recipe.serve_with])
    architecture.validate()
    # Before any SAE: reading one may import SAELens.
    require_stock(base)
    problems: list[HubspliceError] = []
    warnings: list[str] = []
    planned: list[PlannedSplice] = []
    amounts: list[EditAmounts] = []
    names = dict.fromkeys(
        (recipe.base_model, str(base.config.get("_name_or_path", recipe.base_model)))
    )
    if base.previous_splice is not None:
        warnings.append(f"base_model: {recipe.base_model!r} is a spliced model itself")
    for i, splice in enumerate(recipe.splices):
        field = f"splices[{i}]"
        try:
            found = _planned(i, splice, architecture)
        except HubspliceError as error:
            problems.append(error.inside(field))
            continue
        if found.place in (other.place for other in planned):
            problems.append(
                RecipeError(f"{field}: another splice is after layer {found.place} already")
            )
        config = None if found.sae is None else found.sae.config
        room = None if found.in_bias else architecture.intermediate_size
        gates = gate_saes(splice.edits, found.sae, found.place, architecture, field)
        if gates.problems:
            problems += gates.problems
            continue
        found = replace(
            found,
            splice=found.splice.model_copy(update={"edits": gates.edits}),
            gate_saes=gates.found,
        )
        rehearsal = rehearse(
            found.splice,
            found.place,
            config,
            architecture.hidden_size,
            room,
            field,
            {source: sae.config for source, sae in gates.found.items()},
        )
        problems += rehearsal.problems
        found = replace(
            found, conditions=rehearsal.conditions, in_two_layers=rehearsal.in_two_layers
        )
        if found.conditional:
            try:
                require_two_layers(architecture, found.place)
            except HubspliceError as error:
                problems.append(error.inside(field))
        amounts += rehearsal.amounts
        warnings += rehearsal.warnings
        for sae in found.saes:
            doubts = (
                # Those that conditions read are of the place, or were refused.
                *match_warnings(sae.config, names, splice.place if sae is found.sae else None),
                *config_warnings(sae.config),
                *sae.notes,
            )
            warnings += [f"{field}: {doubt}" for doubt in doubts]
        planned.append(found)
    try:
        recipe = with_sae_dataset(recipe, [p.sae.config for p in planned if p.sae is not None])
    except HubspliceError as error:
        problems.append(error)
    else:
        more, doubtful = beforehand(recipe, resolved, base, architecture)
        problems += more
        warnings += doubtful
    if problems:
        raise type(problems[0])("\n".join(map(str, problems)))
    recipe = with_base_commit(recipe, resolved.commit)
    recipe = with_saes(recipe, {p.index: p.sae.source for p in planned if p.sae is not None})
    recipe = with_sae_commits(recipe, {p.index: p.sae.commit for p in planned if p.sae is not None})
    recipe = with_edits(recipe, {p.index: p.splice.edits for p in planned})
    planned.sort(key=lambda splice: splice.place)
    return Plan(
        recipe, resolved, base, architecture, tuple(planned), tuple(warnings), tuple(amounts)
    )


def _planned(index: int, splice: Splice, architecture: Architecture) -> PlannedSplice:
    sae = None
    # The recipe's own validation asks for a layer where there is no SAE.
    place = splice.place
    if splice.sae is not None:
        sae = base_sae(splice.sae, architecture)
        splice = splice.model_copy(update={"sae": sae.source})
        place = site_place(sae.config, splice.place)
    assert place is not None
    architecture.require_place(place)
    return PlannedSplice(index, splice, place, sae, in_bias(splice, place, architecture))
