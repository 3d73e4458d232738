"""From a recipe to a folder: compile, write, measure, describe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hubsplice.building.estimate import estimate
from hubsplice.building.record import describe, layer_constants
from hubsplice.building.steps import measure_build, required_fidelity, write_beside
from hubsplice.card import write_card
from hubsplice.checkpoint.manifest import write_manifest
from hubsplice.checkpoint.writer import WrittenCheckpoint, write_checkpoint
from hubsplice.compiling.compiler import Compiled, added_tensors, compile_plan
from hubsplice.compiling.cost import BuildCost
from hubsplice.compiling.open_plan import OpenPlan, open_plan
from hubsplice.compiling.plan import make_plan
from hubsplice.errors import HubspliceError
from hubsplice.features.amounts import EditAmounts
from hubsplice.features.held import EditHeld
from hubsplice.fidelity.inserted import InsertedAt, bias_indices, inserted_at
from hubsplice.fidelity.measure import Subject
from hubsplice.fidelity.report import FidelityReport
from hubsplice.files.staging import refuse_occupied, staged_directory
from hubsplice.files.unchanged import unchanged
from hubsplice.pictures.drawing import write_pictures
from hubsplice.recipe.models import Recipe
from hubsplice.rendering.content import Line, Part, Tone
from hubsplice.rendering.rendered import Rendered
from hubsplice.streams.precision import exact_products
from hubsplice.terminal import Progress


@dataclass(frozen=True, repr=False)
class BuildResult(Rendered):
    """A spliced checkpoint.

    Attributes:
        folder: where it is.
        report: its fidelity; None where it was not measured.
        warnings: what was built, and may not be what was meant.
        amounts: what the strengths of the edits come to.
        local_base: the base's folder, where it is no repository on the Hub.
        conditions: on how many tokens of calibration text those of the edits held.
    """

    folder: Path
    report: FidelityReport | None
    warnings: tuple[str, ...]
    amounts: tuple[EditAmounts, ...] = ()
    local_base: Path | None = None
    conditions: tuple[EditHeld, ...] = ()

    @property
    def other_warnings(self) -> tuple[str, ...]:
        """Those that the report does not show."""
        shown = self.report.warnings if self.report else ()
        return tuple(warning for warning in self.warnings if warning not in shown)

    def content(self) -> Iterable[Part]:
        """The verdict, the measurements, the warnings, and where the checkpoint is."""
        if self.report is None:
            yield Line("The fidelity was not measured.", Tone.STRONG)
            yield from (Line(str(found)) for found in (*self.amounts, *self.conditions))
        else:
            yield from self.report.content()
        for warning in self.other_warnings:
            yield Line(f"warning: {warning}", Tone.CAUTION)
        yield Line(f"The spliced model is in {self.folder}")


@exact_products()
def build(
    recipe: Recipe,
    *,
    output: Path,
    require_fidelity: float | None,
    measure: bool,
    hard_link: bool,
    progress: Progress,
    allow_failed: bool = False,
    allow_misfit: bool = False,
    on_cost: Callable[[BuildCost], None] | None = None,
) -> BuildResult:
    """Build a recipe into a new folder, which appears whole or not at all.

    Args:
        recipe: what to build.
        output: the folder; missing or empty.
        require_fidelity: the largest ratio of splice error to noise floor that passes; None
            takes the recipe's `fidelity.require`.
        measure: whether to measure; a requirement can't be met unmeasured.
        hard_link: link unchanged shards rather than copy them.
        progress: told of every step.
        allow_failed: keep a result that misses the requirement; its report says so.
        allow_misfit: use an SAE that does not fit the base; report and card say so.
        on_cost: told before anything large is read what the build takes, if that can be said.

    Raises:
        FidelityError: the requirement is not met; nothing is left behind.
        HubspliceError: the recipe can't be built; nothing is left behind.
    """
    require = required_fidelity(recipe, require_fidelity, measure=measure)
    refuse_occupied(Path(os.path.realpath(output)))
    # Configurations are read in a moment, and find most mistakes before any weight is loaded.
    planned = make_plan(recipe)
    if on_cost is not None:
        # A build is not stopped by what can't be said of it.
        with suppress(HubspliceError):
            on_cost(estimate(planned, measure=measure))
    with staged_directory(output) as folder:
        plan = open_plan(planned)
        weights = [shard.path for shard in plan.base.shards]
        with unchanged(weights):
            compiled = compile_plan(plan, progress, allow_misfit=allow_misfit)
            written = _write(plan, compiled, folder, hard_link, progress)
        report = held_out = None
        if measure:
            subject = Subject(
                plan.resolved.folder,
                folder,
                compiled.intervention,
                _inserted(plan, compiled),
                plan.dtype,
                compiled.approximations,
                bias_indices(plan.linker.layers, compiled.biases),
            )
            with unchanged(weights):
                report, held_out = measure_build(
                    plan, compiled, subject, folder, require=require, progress=progress
                )
        files = {**written.files, **write_beside(plan, compiled, held_out, folder)}
        drawn = write_pictures(describe(plan, compiled, written, files, report), report, folder)
        write_manifest(drawn.manifest, folder)
        write_card(folder, model_id=recipe.publish.repo_id or output.resolve().name)
        if report is not None and not allow_failed:
            report.require_passed()
    # What the recipe alone says is found again by calibration.
    warnings = tuple(dict.fromkeys((*planned.warnings, *compiled.warnings, *drawn.lost)))
    local = None if planned.resolved.repo_id else planned.resolved.folder
    return BuildResult(output, report, warnings, compiled.amounts, local, compiled.conditions)


def _write(
    plan: OpenPlan, compiled: Compiled, folder: Path, hard_link: bool, progress: Progress
) -> WrittenCheckpoint:
    linker = plan.linker
    return write_checkpoint(
        plan.base,
        folder,
        rename=linker.rename,
        split=plan.architecture.split,
        new_tensors=added_tensors(plan, compiled),
        config=linker.config(plan.dtype),
        hard_link=hard_link,
        on_progress=lambda done, total: progress("writing", done, total),
    )


def _inserted(plan: OpenPlan, compiled: Compiled) -> tuple[InsertedAt, ...]:
    architecture = plan.architecture
    return inserted_at(
        plan.linker.layers,
        map(layer_constants, compiled.inserted),
        gate_module=architecture.family.becomes.block.gate_module,
        carrier=architecture.carrier,
    )
