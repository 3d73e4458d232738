"""Measure a built folder again, against the intervention that it carries."""

from __future__ import annotations

from pathlib import Path

import torch

from hubsplice.adapters.carrier import Carrier
from hubsplice.adapters.opened import OpenAdapter, required_carrier
from hubsplice.adapters.subject import adapter_subject
from hubsplice.building.findings import Findings
from hubsplice.building.held_out import held_out_text
from hubsplice.building.own_files import require_own_files, require_same_base
from hubsplice.building.record import summary
from hubsplice.building.steps import measured
from hubsplice.card import edited_card, write_card
from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import Manifest, read_manifest, write_manifest
from hubsplice.checkpoint.merged import require_merged
from hubsplice.checkpoint.resolve import require_repository, resolve_recorded
from hubsplice.families.served import built_architecture
from hubsplice.fidelity.inserted import bias_indices, inserted_layers
from hubsplice.fidelity.measure import Subject
from hubsplice.fidelity.report import REPORT, FidelityReport, read_report, write_report
from hubsplice.fidelity.verdict import refuse_no_ratio
from hubsplice.files.digest import digest_file
from hubsplice.files.staging import replaced_files
from hubsplice.files.unchanged import unchanged
from hubsplice.intervention.saved import INTERVENTION, RECIPE, load_intervention
from hubsplice.pictures.drawing import PICTURES, write_pictures
from hubsplice.recipe.reading import recorded_recipe
from hubsplice.streams.precision import exact_products
from hubsplice.terminal import Progress, print_note
from hubsplice.text.tokenizer import load_tokenizer


@exact_products()
def measure(
    folder: Path,
    *,
    base: str | None,
    require_fidelity: float | None,
    progress: Progress,
    carrier: Carrier | None = None,
) -> FidelityReport:
    """Measure a built folder again, against the intervention that it carries.

    The folder's report and card are rewritten.

    Args:
        folder: what `build` made, or a download of it.
        base: the base model, where the folder does not name one on the Hub.
        require_fidelity: the largest ratio that passes; None takes what the report in the folder
            was held to.
        progress: told of every step.
        carrier: of an adapter, what it is for.

    Raises:
        FidelityError: the requirement is not met; report and card say so.
        HubspliceError: hubsplice did not build the folder, a file in it was altered, or the base is
            missing or another one.
    """
    refuse_no_ratio(require_fidelity)
    manifest = read_manifest(folder / MANIFEST)
    if manifest.slots is not None:
        require_merged(manifest, "measure")
    recipe = recorded_recipe(folder / RECIPE)
    if base is None:
        require_repository(manifest.base)
    require_own_files(folder, manifest.files)
    resolved = resolve_recorded(manifest.base, base)
    require_same_base(resolved.folder, manifest.base.files)
    dtype: torch.dtype = getattr(torch, manifest.dtype)
    config = BaseConfig.open(resolved.folder)
    intervention = load_intervention(folder / INTERVENTION)
    tokenizer = load_tokenizer(resolved.folder)
    text = held_out_text(recipe, config, intervention, tokenizer, progress)
    previous = read_report(folder)
    notes = previous.approximations if previous else ()
    if manifest.carrier is not None:
        adapter = OpenAdapter.open(folder, required_carrier(manifest, carrier))
        subject = adapter_subject(adapter, resolved.folder, intervention, dtype, notes)
    else:
        subject = Subject(
            resolved.folder,
            folder,
            intervention,
            inserted_layers(manifest, built_architecture(manifest, config.config)),
            dtype,
            notes,
            bias_indices(manifest.layer_map, [bias.place for bias in manifest.biases]),
        )
    require = require_fidelity
    if require is None:
        require = previous.required_ratio if previous else recipe.fidelity.require
    with unchanged(resolved.folder.glob("*.safetensors")):
        report = measured(
            subject,
            text,
            recipe,
            tokenizer,
            Findings.recorded(manifest),
            require=require,
            progress=progress,
        )
    # What somebody wrote into the card is his.
    edited = edited_card(folder) is not None
    _record_again(report, manifest, folder)
    write_card(folder, model_id=recipe.publish.repo_id, keep=edited)
    report.require_passed()
    return report


def _record_again(report: FidelityReport, manifest: Manifest, folder: Path) -> None:
    """Replace report, pictures and manifest by new files, so that none is ever half written."""
    with replaced_files(folder, "measured", last=MANIFEST, instead_of=PICTURES) as new:
        files = manifest.files | {REPORT: digest_file(write_report(report, new))}
        measured = {"files": files, "fidelity": summary(report)}
        drawn = write_pictures(manifest.model_copy(update=measured), report, new)
        write_manifest(drawn.manifest, new)
        for sentence in drawn.lost:
            print_note(f"warning: {sentence}")
