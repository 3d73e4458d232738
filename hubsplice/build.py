"""From a recipe to a folder: compile, write, measure, describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hubsplice.architectures.registry import architecture_of
from hubsplice.card import write_card
from hubsplice.check import check
from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.digest import FileDigest, digest_file
from hubsplice.checkpoint.manifest import Manifest, read_manifest, write_manifest
from hubsplice.checkpoint.resolve import resolve_base
from hubsplice.checkpoint.space import full_disk
from hubsplice.checkpoint.staging import staged_directory
from hubsplice.checkpoint.writer import WrittenCheckpoint, write_checkpoint
from hubsplice.compiler import (
    Compiled,
    added_tensors,
    compile_plan,
    load_tokenizer,
    require_vocabulary,
)
from hubsplice.errors import CheckpointError, FidelityError, OutputError, RecipeError
from hubsplice.fidelity.measure import Subject, measure_fidelity
from hubsplice.fidelity.report import REPORT, FidelityReport, read_report, write_report
from hubsplice.inserted import InsertedAt, inserted_at, inserted_layers
from hubsplice.plan import Plan, make_plan
from hubsplice.recipe import Recipe, dump_recipe, load_recipe, portable
from hubsplice.record import describe, layer_constants, summary
from hubsplice.reproduction import INTERVENTION, RECIPE, load_intervention, save_intervention
from hubsplice.terminal import Progress
from hubsplice.text.sequences import load_sequences


@dataclass(frozen=True)
class BuildResult:
    """A spliced checkpoint.

    Attributes:
        folder: where it is.
        report: its fidelity; None where it was not measured.
        warnings: what was built, and may not be what was meant.
    """

    folder: Path
    report: FidelityReport | None
    warnings: tuple[str, ...]


def build(
    recipe: Recipe,
    *,
    output: Path,
    require_fidelity: float | None,
    measure: bool,
    hard_link: bool,
    progress: Progress,
    allow_failed: bool = False,
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

    Raises:
        FidelityError: the requirement is not met; nothing is left behind.
        HubspliceError: the recipe can't be built; nothing is left behind.
    """
    require = recipe.fidelity.require if require_fidelity is None else require_fidelity
    if require is not None and not measure:
        raise RecipeError(f"fidelity.require: {require:g} can't be met without measuring")
    # Configurations are read in a moment, and find most mistakes before any weight is loaded.
    check(recipe)
    with staged_directory(output) as folder:
        plan = make_plan(recipe)
        compiled = compile_plan(plan, progress)
        written = _write(plan, compiled, folder, hard_link, progress)
        _write_reproduction(plan, compiled, folder)
        report = None
        if measure:
            text = load_sequences(
                recipe.fidelity, compiled.tokenizer, seed=recipe.seed, part="held-out"
            )
            require_vocabulary(text, plan.base)
            subject = Subject(
                plan.resolved.folder,
                folder,
                compiled.intervention,
                _inserted(plan, compiled),
                plan.dtype,
                compiled.approximations,
                frozenset(compiled.biases),
            )
            report = measure_fidelity(subject, text, require=require, progress=progress)
            write_report(report, folder)
        described = [INTERVENTION, RECIPE, *([REPORT] if report else [])]
        files = {**written.files, **{name: digest_file(folder / name) for name in described}}
        write_manifest(describe(plan, compiled, written, files, report), folder)
        write_card(folder, model_id=recipe.publish.repo_id or output.resolve().name)
        if not allow_failed:
            _enforce(report)
    return BuildResult(output, report, plan.warnings)


def measure(
    folder: Path, *, base: str | None, require_fidelity: float | None, progress: Progress
) -> FidelityReport:
    """Measure a built folder again, against the intervention that it carries.

    The folder's report and card are rewritten.

    Args:
        folder: what `build` made, or a download of it.
        base: the base model, where the folder does not name one on the Hub.
        require_fidelity: the largest ratio that passes; None takes what the report in the folder
            was held to.
        progress: told of every step.

    Raises:
        FidelityError: the requirement is not met; report and card say so.
        HubspliceError: hubsplice did not build the folder, or the base is missing or another one.
    """
    manifest = read_manifest(folder / MANIFEST)
    recipe = load_recipe(folder / RECIPE)
    if base is None and manifest.base.repo_id is None:
        raise RecipeError(
            f"base: the model was made from a local folder, {manifest.base.name!r}; say where it "
            "is with --base"
        )
    resolved = resolve_base(
        base or recipe.base_model, None if base else manifest.base.commit, weights=True
    )
    _require_same_base(resolved.folder, manifest.base.files)
    dtype: torch.dtype = getattr(torch, manifest.dtype)
    text = load_sequences(
        recipe.fidelity, load_tokenizer(resolved.folder), seed=recipe.seed, part="held-out"
    )
    previous = read_report(folder)
    architecture = architecture_of(BaseConfig.open(resolved.folder).config)
    subject = Subject(
        resolved.folder,
        folder,
        load_intervention(folder / INTERVENTION),
        inserted_layers(manifest, architecture),
        dtype,
        previous.approximations if previous else (),
        frozenset(bias.place for bias in manifest.biases),
    )
    require = require_fidelity
    if require is None:
        require = previous.required_ratio if previous else recipe.fidelity.require
    report = measure_fidelity(subject, text, require=require, progress=progress)
    _record_again(report, manifest, folder)
    write_card(folder, model_id=recipe.publish.repo_id)
    _enforce(report)
    return report


def _record_again(report: FidelityReport, manifest: Manifest, folder: Path) -> None:
    """Replace report and manifest by new files, so that none is ever half written."""
    try:
        with TemporaryDirectory(prefix=".measured-", dir=folder) as name:
            new = Path(name)
            write_report(report, new)
            files = manifest.files | {REPORT: digest_file(new / REPORT)}
            write_manifest(
                manifest.model_copy(update={"files": files, "fidelity": summary(report)}), new
            )
            for written in (REPORT, MANIFEST):
                (new / written).replace(folder / written)
    except OSError as error:
        raise full_disk(error, folder) or OutputError(
            f"{folder}: cannot be written: {error.strerror}"
        ) from None


def _write(
    plan: Plan, compiled: Compiled, folder: Path, hard_link: bool, progress: Progress
) -> WrittenCheckpoint:
    architecture, layers = plan.architecture, plan.layers
    return write_checkpoint(
        plan.base,
        folder,
        rename=lambda name: architecture.rename(name, layers),
        split=architecture.split,
        new_tensors=added_tensors(plan, compiled),
        config=architecture.spliced_config(layers, plan.dtype),
        hard_link=hard_link,
        on_progress=lambda done, total: progress("writing", done, total),
    )


def _write_reproduction(plan: Plan, compiled: Compiled, folder: Path) -> None:
    (folder / RECIPE).parent.mkdir()
    (folder / RECIPE).write_text(dump_recipe(portable(plan.recipe)), encoding="utf-8")
    save_intervention(compiled.intervention, folder / INTERVENTION)


def _inserted(plan: Plan, compiled: Compiled) -> tuple[InsertedAt, ...]:
    architecture = plan.architecture
    return inserted_at(
        plan.layers,
        map(layer_constants, compiled.inserted),
        gate_module=architecture.gate_module,
        carrier=architecture.carrier,
    )


def _require_same_base(folder: Path, files: Mapping[str, FileDigest]) -> None:
    for name, expected in files.items():
        path = folder / name
        if name.endswith(".safetensors") and (not path.is_file() or digest_file(path) != expected):
            raise CheckpointError(
                f"base: {name} is not the file that the model was made from (sha256 "
                f"{expected.sha256})"
            )


def _enforce(report: FidelityReport | None) -> None:
    if report is not None and report.passed is False:
        raise FidelityError(report.verdict)
