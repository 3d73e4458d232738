"""Evaluate a built checkpoint beside its base; the results travel with it, and are on its card."""

from __future__ import annotations

from pathlib import Path

from hubsplice.building.own_files import require_own_files, require_same_base
from hubsplice.card import edited_card, write_card
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import Manifest, read_manifest, write_manifest
from hubsplice.checkpoint.merged import require_merged
from hubsplice.checkpoint.resolve import require_repository, resolve_recorded
from hubsplice.errors import RecipeError
from hubsplice.evaluating.evaluate import Asked, Models
from hubsplice.evaluating.evaluate import evaluate as compare
from hubsplice.evaluating.hub_results import hub_files
from hubsplice.evaluating.results import (
    EVALUATION,
    HUB_RESULTS,
    Evaluation,
    base_digest,
    is_evaluation,
    merged,
    model_digest,
    read_evaluation,
)
from hubsplice.explore.harness import Harness
from hubsplice.explore.record import Record
from hubsplice.explore.writing import told_in
from hubsplice.files.digest import digest_file
from hubsplice.files.replacing import require_inside
from hubsplice.files.staging import replaced_files
from hubsplice.intervention.saved import RECIPE
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.reading import load_named_recipe, portable, recorded_recipe
from hubsplice.streams.precision import exact_products
from hubsplice.terminal import Progress


@exact_products()
def evaluate(
    folder: Path,
    *,
    base: str | None,
    asked: Asked | None,
    harness: Harness | None,
    recipe: Path | None,
    record: Path,
    progress: Progress,
) -> Evaluation:
    """Evaluate a built checkpoint, as it lies on the disk, beside its base.

    Args:
        folder: what `build` made, or a download of it.
        base: the base model, where the folder does not name one on the Hub.
        asked: prompts, scores and neutral text; None for none.
        harness: tasks of lm-evaluation-harness; None for none.
        recipe: the recipe's file with what `sweep --write` put into it; None for none.
        record: the file with what was computed earlier, to which more is added.
        progress: told of every step.

    Returns:
        What was asked, and of an earlier evaluation what was not asked again.

    Raises:
        HubspliceError: hubsplice did not build the folder, a file in it was altered, or the base is
            missing or another one.
    """
    manifest = read_manifest(folder / MANIFEST)
    require_merged(manifest, "evaluate")
    own = recorded_recipe(folder / RECIPE)
    swept = () if recipe is None else _swept(recipe, own)
    if base is None:
        require_repository(manifest.base)
    require_own_files(folder, manifest.files)
    resolved = resolve_recorded(manifest.base, base)
    require_same_base(resolved.folder, manifest.base.files)
    previous = read_evaluation(folder)
    models = Models(
        base=resolved.folder,
        edited=folder,
        base_digest=base_digest(manifest),
        edited_digest=model_digest(manifest),
        dtype=manifest.dtype,
    )
    found = compare(models, asked, harness, Record(record), progress)
    found = merged(previous, found.model_copy(update={"sweep": swept}))
    # What somebody wrote into the card is his.
    edited = edited_card(folder) is not None
    _write(found, manifest, folder)
    write_card(folder, model_id=own.publish.repo_id, keep=edited)
    return found


def _swept(path: Path, own: Recipe) -> tuple[str, ...]:
    """What a sweep wrote into a recipe, which has to be the folder's."""
    recipe = load_named_recipe(path)
    if portable(recipe).splices != portable(own).splices:
        raise RecipeError(
            f"--recipe: {path} asks for other edits than the folder's {RECIPE}; what was found of "
            "them says nothing of this model"
        )
    found = told_in(path)
    if not found:
        raise RecipeError(f"--recipe: {path} holds nothing that `hubsplice sweep --write` wrote")
    return found


def _write(found: Evaluation, manifest: Manifest, folder: Path) -> None:
    """Put the evaluation in the place of an earlier one, and list its files in the manifest."""
    texts = {EVALUATION: found.model_dump_json(indent=2) + "\n", **hub_files(found)}
    kept = {name: d for name, d in manifest.files.items() if not is_evaluation(name)}
    earlier = manifest.files.keys() - kept.keys()
    # Also where there is nothing to write today.
    require_inside(folder, folder / HUB_RESULTS / "result.yaml")
    with replaced_files(folder, "evaluated", last=MANIFEST, instead_of=earlier) as new:
        for name, text in texts.items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_text(text, encoding="utf-8")
        files = kept | {name: digest_file(new / name) for name in texts}
        write_manifest(manifest.model_copy(update={"files": files}), new)
