"""Putting an engine's run on record in the checkpoint's folder, for its card to show."""

from __future__ import annotations

import datetime
from pathlib import Path

from hubsplice import __version__
from hubsplice.card import edited_card, write_card
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.engine_runs import (
    ENGINE_RUNS,
    EngineRun,
    EngineRuns,
    read_engine_runs,
    weights_digest,
)
from hubsplice.checkpoint.manifest import manifest_text, read_manifest
from hubsplice.errors import RecipeError
from hubsplice.files.digest import digest_bytes
from hubsplice.files.plain import is_folder
from hubsplice.files.replacing import replace_file
from hubsplice.intervention.saved import RECIPE
from hubsplice.recipe.reading import recorded_recipe
from hubsplice.verifying.verify import Verification


def require_recordable(model: str) -> Path:
    """The folder that a run can be recorded in.

    Raises:
        RecipeError: it is not on this machine.
    """
    folder = Path(model).expanduser()
    if not is_folder(folder):
        raise RecipeError(
            f"--record: {model!r} is no folder here; record the run in the folder that you built, "
            "then publish it again"
        )
    return folder


def record_run(folder: Path, found: Verification) -> EngineRun | None:
    """Write down what an engine did, in the checkpoint's folder, and write its card again.

    A run that failed is recorded too. Where the engine gave no answer, there is nothing to record.

    Args:
        folder: the checkpoint.
        found: its verification, with an engine.

    Returns:
        What was recorded; None where there was nothing.

    Raises:
        HubspliceError: the folder's records can't be read or written.
    """
    behaviour = found.behaviour
    if behaviour is None:
        return None
    manifest = read_manifest(folder / MANIFEST)
    run = EngineRun(
        engine=behaviour.engine,
        version=behaviour.version,
        device=behaviour.device,
        dtype=behaviour.dtype,
        date=datetime.datetime.now(datetime.UTC).date(),
        hubsplice=__version__,
        passed=found.passed,
        missed=tuple(check.name for check in found.checks if not check.passed),
        prompts=behaviour.prompts,
        generated_tokens=behaviour.generated_tokens,
        error=behaviour.error,
        noise_floor=behaviour.noise_floor,
        effect=behaviour.effect,
        weights=weights_digest(manifest),
    )
    text = EngineRuns(runs=read_engine_runs(folder, manifest)).with_run(run)
    content = text.model_dump_json(indent=2) + "\n"
    files = manifest.files | {ENGINE_RUNS: digest_bytes(content.encode())}
    changed = manifest.model_copy(update={"files": files})
    recipe = recorded_recipe(folder / RECIPE)
    edited = edited_card(folder) is not None
    replace_file(folder / ENGINE_RUNS, content)
    replace_file(folder / MANIFEST, manifest_text(changed))
    write_card(folder, model_id=recipe.publish.repo_id, keep=edited)
    return run
