"""The card of a folder that `hubsplice build` wrote."""

from __future__ import annotations

from pathlib import Path

from hubsplice.card.render import render_card
from hubsplice.checkpoint.checksums import write_checksums
from hubsplice.checkpoint.companions import CARD, MANIFEST
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.fidelity.report import read_report
from hubsplice.files.plain import exists
from hubsplice.files.replacing import replace_file
from hubsplice.intervention.saved import RECIPE
from hubsplice.recipe.reading import recorded_recipe


def card_text(folder: Path, *, model_id: str | None = None, license_id: str | None = None) -> str:
    """The card that `write_card` writes, with the same arguments.

    Raises:
        CheckpointError: the manifest is missing, or one of the files is malformed.
    """
    recipe = recorded_recipe(folder / RECIPE) if exists(folder / RECIPE) else None
    return render_card(
        read_manifest(folder / MANIFEST),
        read_report(folder),
        title=recipe.title if recipe else None,
        description=recipe.description if recipe else None,
        license_id=license_id,
        model_id=model_id or folder.resolve().name,
    )


def write_card(folder: Path, *, model_id: str | None = None, license_id: str | None = None) -> Path:
    """Write `README.md` from the folder's manifest, report and recipe, over an earlier one.

    The list of checksums in `reproduce/`, which has the card's, is written again. The report and
    the recipe, which gives the title and the description, may be missing.

    Args:
        folder: holds `splice.json`, and perhaps `fidelity.json` and `reproduce/recipe.yaml`.
        model_id: what the examples load; the folder's name where it is None.
        license_id: another licence than the base's, as the Hub writes it (`apache-2.0`).

    Returns:
        The path of the card.

    Raises:
        CheckpointError: the manifest is missing, or one of the files is malformed.
        OutputError: the card can't be written.
    """
    text = card_text(folder, model_id=model_id, license_id=license_id)
    path = folder / CARD
    replace_file(path, text)
    write_checksums(folder)
    return path
