"""The manifest of a build: what went in, what was chosen, what came out."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hubsplice import __version__
from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.layout import Zeros
from hubsplice.checkpoint.manifest import (
    SCHEMA_VERSION,
    Architectures,
    BaseRecord,
    CalibrationRecord,
    EditedBias,
    InsertedLayer,
    Manifest,
    TermRecord,
    read_previous_splice,
)
from hubsplice.checkpoint.resolve import ResolvedBase
from hubsplice.checkpoint.terms import read_terms
from hubsplice.checkpoint.writer import WrittenCheckpoint
from hubsplice.compiling.compiler import Compiled, added_tensors
from hubsplice.compiling.lowering import LoweredSplice
from hubsplice.compiling.open_plan import OpenPlan
from hubsplice.compiling.plan import PlannedSplice
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.edits.base import Edit
from hubsplice.features.amounts import EditAmounts
from hubsplice.features.held import Held
from hubsplice.features.sae import LoadedSae
from hubsplice.fidelity.report import FidelityReport
from hubsplice.files.digest import FileDigest
from hubsplice.recipe.reading import portable

_RECORDED = ("torch", "transformers", "safetensors", "sae-lens", "numpy")


def describe(
    plan: OpenPlan,
    compiled: Compiled,
    written: WrittenCheckpoint,
    files: Mapping[str, FileDigest],
    report: FidelityReport | None,
) -> Manifest:
    """The manifest of a checkpoint that has been written.

    Args:
        plan: what was asked for.
        compiled: what it compiled to.
        written: the checkpoint.
        files: every file of the result but the manifest and the card.
        report: the measured fidelity, if it was measured.
    """
    linker, family = plan.linker, plan.architecture.family
    config = linker.config(plan.dtype)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        hubsplice=__version__,
        base=base_record(plan.resolved, plan.base, plan.recipe.base_model, written.base_files),
        architectures=Architectures(before=family.class_name, after=family.becomes.name),
        layer_map=linker.layers,
        config_changes=linker.config_changes(config),
        zero_tensors=tuple(sorted(_zero_tensors(plan, compiled))),
        layers=tuple(
            layer
            for parts in zip(
                plan.splices,
                plan.saes,
                _portable_splices(plan),
                compiled.lowered,
                compiled.stacks,
                strict=True,
            )
            for layer in _layers(*parts)
        ),
        biases=_biases(plan, compiled),
        calibration=_calibration(compiled),
        dtype=str(plan.dtype).removeprefix("torch."),
        seeds={"recipe": plan.recipe.seed},
        versions=versions(),
        files=dict(files),
        fidelity=summary(report) if report else {},
    )


def versions() -> dict[str, str]:
    """The versions that a manifest records."""
    return {"python": platform.python_version(), **{n: version(n) for n in _RECORDED}}


def summary(report: FidelityReport) -> dict[str, Any]:
    """The report's verdict and its headline figures."""
    served = report.precisions[0]
    return {
        "verdict": report.verdict,
        "outcome": report.outcome,
        "passed": report.passed,
        "edit_effect": report.edit_effect.mean,
        "splice_error": served.splice_error.mean,
        "ratio": served.ratio.value if served.ratio else None,
    }


def layer_constants(layer: CompiledLayer) -> dict[str, Any]:
    """What the manifest records of how a layer was made."""
    homes = {"homes": list(layer.homes)} if layer.homes else {}
    return {**layer.constants, "jump_gates": [list(gate) for gate in layer.jump_gates], **homes}


def base_record(
    resolved: ResolvedBase, base: BaseConfig, named: str, files: Mapping[str, FileDigest]
) -> BaseRecord:
    """What a manifest says of a base.

    Args:
        resolved: where it came from.
        base: what it says of itself.
        named: how the user named it.
        files: those of it that were read.
    """
    previous = base.previous_splice
    return BaseRecord(
        name=resolved.repo_id or Path(named).name,
        repo_id=resolved.repo_id,
        commit=resolved.commit,
        files=dict(files),
        terms=read_terms(resolved),
        previous=None if previous is None else read_previous_splice(previous),
    )


def _zero_tensors(plan: OpenPlan, compiled: Compiled) -> list[str]:
    tensors = added_tensors(plan, compiled)
    return [name for name, tensor in tensors.items() if isinstance(tensor, Zeros)]


def _portable_splices(plan: OpenPlan) -> list[Any]:
    """The recipe's splices without local paths, in the order of the plan's."""
    splices = portable(plan.recipe).splices
    return [splices[planned.index] for planned in plan.splices]


def _layers(
    planned: PlannedSplice,
    sae: LoadedSae | None,
    portable_splice: Any,
    lowered: LoweredSplice,
    stack: tuple[CompiledLayer, ...],
) -> Iterator[InsertedLayer]:
    for index, layer in enumerate(stack, start=1):
        yield InsertedLayer(
            site=planned.place.layer,
            block=planned.place.block,
            construction=str(layer.constants.get("construction", "empty")),
            constants=layer_constants(layer),
            # The last one edits; those before it prepare what it reads.
            terms=_terms(planned, sae, portable_splice, lowered) if index == len(stack) else (),
        )


def _biases(plan: OpenPlan, compiled: Compiled) -> tuple[EditedBias, ...]:
    names = {planned.place: name for name, planned in plan.edited_biases.items()}
    return tuple(
        EditedBias(
            site=planned.place.layer,
            tensor=names[planned.place],
            terms=_terms(planned, sae, portable_splice, lowered),
        )
        for planned, sae, portable_splice, lowered in zip(
            plan.splices, plan.saes, _portable_splices(plan), compiled.lowered, strict=True
        )
        if planned.in_bias
    )


def _terms(
    planned: PlannedSplice, sae: LoadedSae | None, portable_splice: Any, lowered: LoweredSplice
) -> tuple[TermRecord, ...]:
    source = portable_splice.sae.model_dump(mode="json", exclude_none=True) if sae else {}
    edits = planned.splice.edits
    names = dict(zip(map(id, edits), portable_splice.edits, strict=True))
    amounts = dict(zip(map(id, edits), lowered.amounts, strict=True))
    held = {id(edits[condition.edit]): condition.held for condition in lowered.conditions}
    return tuple(
        _term(
            term.label,
            edit,
            names[id(edit)],
            source,
            sae.sha256 if sae else None,
            amounts[id(edit)],
            # Once for an edit, whose terms are called differently.
            held.pop(id(edit), None),
        )
        for term, edit in zip(lowered.site.terms, lowered.origins, strict=True)
    )


def _term(
    label: str,
    edit: Edit,
    shown: Edit,
    source: dict[str, Any],
    sha256: str | None,
    amounts: EditAmounts,
    held: Held | None,
) -> TermRecord:
    features, named = edit.feature_indices(), bool(edit.all_indices())
    return TermRecord(
        label=label,
        kind=edit.kind,
        feature=features[0] if features else None,
        formula=edit.formula,
        edit=shown.model_dump(mode="json", exclude_none=True),
        source=source if named else {},
        source_sha256=sha256 if named else None,
        amounts=amounts.amounts,
        held=held,
    )


def _calibration(compiled: Compiled) -> CalibrationRecord:
    text = compiled.text.sequences
    return CalibrationRecord(
        dataset=text.dataset,
        revision=text.revision,
        token_ids_sha256=text.sha256,
        tokens=text.tokens,
        drawn_sequences=text.drawn,
        chosen_sequences=len(text.ids) - text.drawn,
        scanned_tokens=compiled.text.scanned,
        seed=text.seed,
        median_norm={str(s.site.place): s.statistics.median_norm for s in compiled.lowered},
        sink_norm={
            str(s.site.place): s.site.sink_norm if math.isfinite(s.site.sink_norm) else None
            for s in compiled.lowered
        },
        sae_fit=compiled.sae_fit,
        warnings=compiled.warnings,
    )
