"""From a recipe to an adapter for a carrier: the same layers, put into its slots."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hubsplice.adapters.carrier import Carrier
from hubsplice.adapters.peft_files import write_adapter
from hubsplice.adapters.subject import subject as subject_of
from hubsplice.building.build import BuildResult
from hubsplice.building.record import describe, layer_constants
from hubsplice.building.steps import measure_build, required_fidelity, write_beside
from hubsplice.card import write_card
from hubsplice.checkpoint.manifest import (
    CarrierRecord,
    InsertedLayer,
    Manifest,
    write_manifest,
)
from hubsplice.checkpoint.writer import WrittenCheckpoint
from hubsplice.compiling.compiler import Compiled, compile_plan
from hubsplice.compiling.construct import compile_site
from hubsplice.compiling.open_plan import OpenPlan, open_plan
from hubsplice.compiling.plan import Plan, PlannedSplice, make_plan
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.slots import (
    Factors,
    NoRoomError,
    SlottedLayer,
    in_slots,
)
from hubsplice.errors import CheckpointError, RecipeError, UnsupportedError
from hubsplice.fidelity.measure import Subject
from hubsplice.fidelity.report import FidelityReport
from hubsplice.files.digest import FileDigest, digest_file
from hubsplice.files.staging import staged_directory
from hubsplice.files.unchanged import unchanged
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site
from hubsplice.pictures.drawing import write_pictures
from hubsplice.recipe.models import Recipe
from hubsplice.streams.calibration import SiteActivations
from hubsplice.streams.precision import exact_products
from hubsplice.terminal import Progress


@dataclass(frozen=True, eq=False)
class _Adapted:
    """A recipe's layers in the slots of a carrier.

    Attributes:
        carrier: the carrier.
        layers: by its inserted layer; those that the recipe does not edit are left out.
    """

    carrier: Carrier
    layers: Mapping[int, SlottedLayer]

    def record(self, splice: int) -> dict[str, Any]:
        """What the manifest has of an edited layer, beside what it has of every layer."""
        layer = self.layers[splice]
        return layer.record | {"rounded_biases": layer.rounded_biases(self.carrier.slots)}

    @cached_property
    def changes(self) -> dict[int, dict[str, Factors]]:
        """What the adapter changes; all of one rank."""
        return self.carrier.factors(self.layers)


@exact_products()
def build_adapter(
    recipe: Recipe,
    carrier: Carrier,
    *,
    output: Path,
    require_fidelity: float | None,
    measure: bool,
    progress: Progress,
    allow_failed: bool = False,
    allow_misfit: bool = False,
) -> BuildResult:
    """Build a recipe into an adapter, in a new folder that appears whole or not at all.

    Args:
        recipe: what to build.
        carrier: what the adapter is for.
        output: the folder; missing or empty.
        require_fidelity, measure, progress, allow_failed, allow_misfit: as of `build`.

    Raises:
        FidelityError: the requirement is not met; nothing is left behind.
        UnsupportedError: the carrier has no layer, or no slots, for the edits.
        CheckpointError: the carrier is of another base.
        HubspliceError: the recipe can't be built; nothing is left behind.
    """
    require = required_fidelity(recipe, require_fidelity, measure=measure)
    planned = _in_layers(make_plan(recipe), carrier)
    with staged_directory(output) as folder, ExitStack() as stack:
        plan = open_plan(planned)
        stack.enter_context(unchanged(shard.path for shard in plan.base.shards))
        _require_base(plan, carrier, progress)
        seen: list[tuple[Site, SiteActivations, CompiledLayer]] = []
        compiled = compile_plan(
            plan,
            progress,
            allow_misfit=allow_misfit,
            shown=lambda *parts: seen.append(parts),
        )
        adapted = _adapted(plan, carrier, seen)
        names = write_adapter(carrier, adapted.changes, folder)
        report = held_out = None
        if measure:
            subject = _subject(plan, compiled, adapted)
            report, held_out = measure_build(
                plan, compiled, subject, folder, require=require, progress=progress
            )
        files = {name: digest_file(folder / name) for name in names}
        files |= write_beside(plan, compiled, held_out, folder)
        drawn = write_pictures(_described(plan, compiled, adapted, files, report), report, folder)
        write_manifest(drawn.manifest, folder)
        write_card(folder, model_id=recipe.publish.repo_id or output.resolve().name)
        if report is not None and not allow_failed:
            report.require_passed()
    warnings = tuple(dict.fromkeys((*planned.warnings, *compiled.warnings, *drawn.lost)))
    return BuildResult(output, report, warnings, compiled.amounts, conditions=compiled.conditions)


def _in_layers(plan: Plan, carrier: Carrier) -> Plan:
    """The plan with every edit in an inserted layer, and each of them one of the carrier's."""
    ours, theirs = (a.family.becomes.block for a in (plan.architecture, carrier.architecture))
    if ours.construction is not theirs.construction:
        raise UnsupportedError(
            "serve_with: it asks for layers of another construction than the carrier has slots "
            "for, and adapters are served by vLLM and by transformers; build a merged checkpoint"
        )
    for planned in plan.splices:
        if planned.conditional:
            raise UnsupportedError(
                f"{planned.field}.edits: a condition (`when`) takes two layers behind one another, "
                "and a carrier has one at each place; build a merged checkpoint"
            )
        if planned.splice.construction == "bias":
            raise RecipeError(
                f"{planned.field}.construction: found bias, expected layer or auto: an adapter "
                "changes no biases"
            )
        if planned.place not in carrier.places:
            there = ", ".join(map(str, carrier.places))
            wanted = ",".join(
                str(layer)
                for layer in sorted({*(p.layer for p in carrier.places), planned.place.layer})
            )
            raise UnsupportedError(
                f"{planned.field}: the carrier {carrier.name} has no empty layer after "
                f"{planned.place}; it has them after {there}. One that has: hubsplice carrier "
                f"MODEL --after-layer {wanted}"
            )
    splices = tuple(replace(planned, in_bias=False) for planned in plan.splices)
    architecture = replace(plan.architecture, held=carrier.architecture.held)
    return replace(plan, splices=splices, architecture=architecture)


def _require_base(plan: OpenPlan, carrier: Carrier, progress: Progress) -> None:
    """Refuse a recipe of another base than the carrier's."""
    record, resolved = carrier.manifest.base, plan.resolved
    if record.commit is not None and (record.repo_id, record.commit) == (
        resolved.repo_id,
        resolved.commit,
    ):
        return
    shards = [shard.path for shard in plan.base.shards]
    for done, path in enumerate(shards):
        progress("comparing the base with the carrier's", done, len(shards))
        expected = record.files.get(path.name)
        if expected is None or digest_file(path) != expected:
            raise CheckpointError(
                f"base_model: {path.name} is not the file that the carrier {carrier.name} was made "
                f"from: its base is {record.name}"
            )
    progress("comparing the base with the carrier's", len(shards), len(shards))


def _adapted(
    plan: OpenPlan,
    carrier: Carrier,
    seen: Sequence[tuple[Site, SiteActivations, CompiledLayer]],
) -> _Adapted:
    layers = {}
    for planned, (site, activations, layer) in zip(plan.splices, seen, strict=True):
        _require_own_scale(planned, site)
        try:
            found = in_slots(layer, site, activations, carrier.slots)
        except NoRoomError as error:
            raise _too_many(plan, carrier, planned, site, activations, error) from None
        layers[carrier.places.index(planned.place)] = found
    return _Adapted(carrier, layers)


def _require_own_scale(planned: PlannedSplice, site: Site) -> None:
    """Refuse SAEs that normalise their input: nothing is injected then that gives 1 back."""
    for term in site.terms:
        if term.normalization is not Normalization.NONE and term.encoder.any():
            raise UnsupportedError(
                f"{planned.field}.sae: it normalises its input ({term.normalization.value}); its "
                "thresholds are biases of their own, and an adapter brings none; build a merged "
                "checkpoint instead"
            )


def _too_many(
    plan: OpenPlan,
    carrier: Carrier,
    planned: PlannedSplice,
    site: Site,
    activations: SiteActivations,
    error: NoRoomError,
) -> UnsupportedError:
    """Say how much fits, which is found by compiling, and which carrier holds all of it."""

    def overflows(terms: int) -> bool:
        part = replace(site, terms=site.terms[:terms])
        layer = compile_site(carrier.architecture, part, activations, plan.dtype)
        try:
            in_slots(layer, part, activations, carrier.slots)
        except NoRoomError:
            return True
        return False

    fitting = bisect_left(range(len(site.terms)), True, key=overflows) - 1
    slots = carrier.slots
    room = carrier.architecture.intermediate_size - slots.squares
    layers = ",".join(str(place.layer) for place in carrier.places)
    other = f"one that has room: hubsplice carrier MODEL --after-layer {layers} --slots"
    advice = (
        f"{other} {error.total}"
        if error.total <= room
        else "give fewer, or build a merged checkpoint"
    )
    return UnsupportedError(
        f"{planned.field}.edits: {error}: the first {max(0, fitting)} of {len(site.terms)} terms "
        f"fit into the carrier {carrier.name}; {advice}"
    )


def _subject(plan: OpenPlan, compiled: Compiled, adapted: _Adapted) -> Subject:
    made = dict(zip(sorted(adapted.layers), compiled.layers, strict=True))
    return subject_of(
        adapted.carrier,
        adapted.changes,
        {splice: layer_constants(layer) | adapted.record(splice) for splice, layer in made.items()},
        plan.resolved.folder,
        compiled.intervention,
        plan.dtype,
        compiled.approximations,
    )


def _described(
    plan: OpenPlan,
    compiled: Compiled,
    adapted: _Adapted,
    files: Mapping[str, FileDigest],
    report: FidelityReport | None,
) -> Manifest:
    carrier = adapted.carrier
    # Which files of the base were read is known from the carrier, which holds their data.
    written = WrittenCheckpoint({}, carrier.manifest.base.files)
    described = describe(plan, compiled, written, files, report)
    return described.model_copy(
        update={
            "layer_map": carrier.layers,
            "layers": _layers_of(described.layers, adapted),
            "config_changes": {},
            "zero_tensors": (),
            "carrier": CarrierRecord(
                name=carrier.name,
                repo_id=carrier.repo_id,
                commit=carrier.commit,
                fingerprint=carrier.fingerprint,
            ),
        }
    )


def _layers_of(made: Sequence[InsertedLayer], adapted: _Adapted) -> tuple[InsertedLayer, ...]:
    """A record for each of the carrier's layers; those that the recipe edits say their slots."""
    by_splice = dict(zip(sorted(adapted.layers), made, strict=True))
    return tuple(
        by_splice[splice].model_copy(
            update={"constants": by_splice[splice].constants | adapted.record(splice)}
        )
        if splice in by_splice
        else empty
        for splice, empty in enumerate(adapted.carrier.manifest.layers)
    )
