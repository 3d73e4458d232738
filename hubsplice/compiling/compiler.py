"""From a plan to compiled layers: calibrate, lower, compile, site by site."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hubsplice.checkpoint.layout import NewTensor
from hubsplice.compiling.calibrated import CalibratedPlan, calibrate
from hubsplice.compiling.conditional import compiled
from hubsplice.compiling.conditions import condition_doubts
from hubsplice.compiling.construct import stacked
from hubsplice.compiling.lowering import LoweredSplice
from hubsplice.compiling.misfits import require_fit
from hubsplice.compiling.open_plan import OpenPlan
from hubsplice.compiling.plan import PlannedSplice
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.output_bias import OutputBias
from hubsplice.errors import RecipeError, UnsupportedError
from hubsplice.features.amounts import EditAmounts
from hubsplice.features.fit_record import SaeFit
from hubsplice.features.held import EditHeld
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site
from hubsplice.streams.acting import ActingText
from hubsplice.streams.calibration import SiteActivations, median_norm, stream_at
from hubsplice.streams.model import loaded
from hubsplice.terminal import Progress


@dataclass(frozen=True, eq=False)
class Compiled:
    """Everything that a recipe compiles to.

    Attributes:
        tokenizer: the base's.
        text: the calibration text, and which of it was looked for.
        lowered: the splices as ridge functions, in layer order.
        layers: what each compiles to, in the same order.
        stacks: the decoder layers that each of them is written as; none for what a bias carries.
    """

    tokenizer: PreTrainedTokenizerBase
    text: ActingText
    lowered: tuple[LoweredSplice, ...]
    layers: tuple[CompiledLayer, ...]
    stacks: tuple[tuple[CompiledLayer, ...], ...]

    @property
    def inserted(self) -> tuple[CompiledLayer, ...]:
        """Every decoder layer that is inserted, in the order of the plan's `places`."""
        return tuple(layer for stack in self.stacks for layer in stack)

    @property
    def biases(self) -> dict[Place, OutputBias]:
        """What biases of existing layers carry, by the place."""
        return {
            splice.site.place: layer
            for splice, layer in zip(self.lowered, self.layers, strict=True)
            if isinstance(layer, OutputBias)
        }

    @property
    def intervention(self) -> Intervention:
        """The reference hook of all sites."""
        return Intervention(tuple(splice.site for splice in self.lowered))

    @property
    def approximations(self) -> tuple[str, ...]:
        """What the edits or their constructions do not reproduce, one sentence each."""
        of_edits = [note for splice in self.lowered for note in splice.approximations]
        of_layers = [note for layer in self.layers for note in layer.approximations]
        return tuple(dict.fromkeys((*of_edits, *of_layers)))

    @property
    def amounts(self) -> tuple[EditAmounts, ...]:
        """What the strengths came to, an entry for each edit that has one."""
        return tuple(found for s in self.lowered for found in s.amounts if found.amounts)

    @property
    def conditions(self) -> tuple[EditHeld, ...]:
        """On how many tokens conditions held, an entry for each edit that has one."""
        return tuple(condition.told for s in self.lowered for condition in s.conditions)

    @property
    def sae_fit(self) -> dict[str, SaeFit]:
        """Whether each SAE fits, by the site, as the manifest calls it."""
        return {str(s.site.place): s.fit for s in self.lowered if s.fit is not None}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What calibration found that may not be what was meant."""
        return tuple(
            warning
            for splice in self.lowered
            for warning in (*splice.warnings, *condition_doubts(splice.conditions))
        )


def compile_plan(
    plan: OpenPlan,
    progress: Progress,
    *,
    allow_misfit: bool = False,
    observe: Callable[[Sequence[Tensor]], None] | None = None,
    shown: Callable[[Site, SiteActivations, CompiledLayer], None] | None = None,
) -> Compiled:
    """Compile every splice of a plan.

    Args:
        plan: the plan, with its weights.
        progress: told of every step.
        allow_misfit: whether an SAE may be used that does not fit the base.
        observe: shown the float32 stream at each splice, shape [tokens, d], which is not kept.
        shown: shown each layer as it is compiled, and what it was compiled from.

    Raises:
        HubspliceError: an edit can't be lowered or does not fit, or a model can't be loaded.
    """
    calibrated = calibrate(plan, progress)
    if not allow_misfit:
        require_fit(plan.splices, calibrated.splices)
    reference, lowered = calibrated.streams, calibrated.splices
    if observe is not None:
        observe(reference)
    for planned, splice, h in zip(plan.splices, lowered, reference, strict=True):
        _require_finite(planned, splice.site, h, plan.dtype)
    serving = _serving(plan, calibrated, progress)
    layers: list[CompiledLayer] = []
    for i, (planned, splice, before, after) in enumerate(
        zip(plan.splices, lowered, reference, serving, strict=True)
    ):
        progress("compiling", i, len(lowered))
        activations = SiteActivations(
            before, after, median_norm(before), plan.architecture.norm_eps
        )
        layer: CompiledLayer
        if planned.in_bias:
            multiplier = plan.architecture.branch_multiplier
            layer = OutputBias.of(splice.site, plan.dtype, multiplier)
        else:
            layer = compiled(plan.architecture, splice.site, activations, plan.dtype)
        if layer.neurons > plan.architecture.intermediate_size:
            raise _too_many(plan, planned, splice, activations, layer.neurons)
        _require_finite_layer(planned, layer)
        if shown is not None:
            shown(splice.site, activations, layer)
        layers.append(layer)
    progress("compiling", len(lowered), len(lowered))
    stacks = tuple(
        () if planned.in_bias else stacked(plan.architecture, layer, planned.place)
        for layer, planned in zip(layers, plan.splices, strict=True)
    )
    return Compiled(calibrated.tokenizer, calibrated.text, lowered, tuple(layers), stacks)


def added_tensors(plan: OpenPlan, compiled: Compiled) -> dict[str, NewTensor]:
    """Every tensor of the result that is not the base's, by name."""
    linker = plan.linker
    tensors: dict[str, NewTensor] = {**linker.bias_tensors(plan.base.tensors)}
    biases = compiled.biases
    tensors |= {name: biases[s.place].bias for name, s in plan.edited_biases.items()}
    for splice, layer in enumerate(compiled.inserted):
        tensors |= linker.inserted_tensors(splice, layer, plan.dtype)
    return tensors


def _serving(plan: OpenPlan, calibrated: CalibratedPlan, progress: Progress) -> Sequence[Tensor]:
    if plan.dtype is torch.float32:
        return calibrated.streams
    name = str(plan.dtype).removeprefix("torch.")
    places = [planned.place for planned in plan.splices]
    text = calibrated.text.sequences
    with loaded(plan.resolved.folder, plan.dtype, keep=True) as model:
        streams = stream_at(
            model,
            text.ids,
            places,
            calibrated.intervention,
            lambda done, total: progress(f"calibrating in {name}", done, total),
        )
    is_text = text.is_text.flatten()
    return [streams[place][is_text] for place in places]


def _too_many(
    plan: OpenPlan,
    planned: PlannedSplice,
    lowered: LoweredSplice,
    activations: SiteActivations,
    needed: int,
) -> UnsupportedError:
    """Say how many edits fit, which depends on each and is found by compiling."""
    architecture, site, origins = plan.architecture, lowered.site, lowered.origins
    room = architecture.intermediate_size

    def overflows(terms: int) -> bool:
        part = replace(site, terms=site.terms[:terms])
        return compiled(architecture, part, activations, plan.dtype).neurons > room

    fitting = bisect_left(range(len(site.terms)), True, key=overflows) - 1
    complete = set(map(id, origins[:fitting])) - set(map(id, origins[fitting:]))
    return UnsupportedError(
        f"{planned.field}.edits: {len(planned.splice.edits)} edits need {needed} neurons, and a "
        f"layer of this model has {room}: the first {len(complete)} fit; give fewer, or put some "
        "after another layer"
    )


def _require_finite(planned: PlannedSplice, site: Site, h: Tensor, dtype: torch.dtype) -> None:
    if not torch.isfinite(h).all():
        raise RecipeError(
            f"{planned.field}: the residual stream after layer {site.place} is not finite on the "
            "calibration text: the base's weights or an earlier edit overflow"
        )
    # The next RMSNorm takes squares, in float32 whatever the dtype.
    if not torch.isfinite(site.edit(h).to(dtype).float().square().sum(dim=-1)).all():
        raise RecipeError(
            f"{planned.field}.edits: with them the residual stream overflows on the "
            "calibration text: a strength, a factor or a vector is too large"
        )


def _require_finite_layer(planned: PlannedSplice, layer: CompiledLayer) -> None:
    for name, tensor in layer.tensors().items():
        if not torch.isfinite(tensor).all():
            raise UnsupportedError(
                f"{planned.field}.edits: {name} of the inserted layer is not finite: a strength, a "
                "factor or a vector is too large"
            )
