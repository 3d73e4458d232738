"""The card of a folder that `hubsplice build` wrote."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

from hubsplice.card.context import card_context
from hubsplice.card.render import card_text, data_text
from hubsplice.card.stale import Stale, stale_parts
from hubsplice.card.words import read_words
from hubsplice.checkpoint.checksums import recorded_digest, write_checksums
from hubsplice.checkpoint.companions import CARD, CARD_DATA, MANIFEST
from hubsplice.checkpoint.engine_runs import read_engine_runs
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.errors import CheckpointError
from hubsplice.evaluating.results import read_evaluation
from hubsplice.fidelity.report import read_report
from hubsplice.files.digest import digest_bytes
from hubsplice.files.plain import exists, read_plain
from hubsplice.files.replacing import replace_file
from hubsplice.intervention.saved import RECIPE
from hubsplice.recipe.reading import recorded_recipe

_MODEL_ID = re.compile(r'^model_id = ("(?:[^"\\]|\\.)*")$', re.MULTILINE)


def card_files(
    folder: Path, *, model_id: str | None = None, license_id: str | None = None
) -> dict[str, str]:
    """What `write_card` writes, by name, with the same arguments.

    Raises:
        CheckpointError: the manifest is missing, or one of the files is malformed.
    """
    recipe = recorded_recipe(folder / RECIPE) if exists(folder / RECIPE) else None
    manifest, report = read_manifest(folder / MANIFEST), read_report(folder)
    evaluation = read_evaluation(folder)
    context = card_context(
        manifest,
        report,
        author=read_words(folder, recipe),
        license_id=license_id,
        model_id=model_id or folder.resolve().name,
        runs=read_engine_runs(folder, manifest),
        evaluation=evaluation,
    )
    return {
        CARD: card_text(context, manifest, license_id, evaluation),
        CARD_DATA: data_text(context),
    }


def edited_card(folder: Path) -> str | None:
    """How a folder's card differs from what hubsplice wrote, as a diff; None where it does not.

    Args:
        folder: what `hubsplice build` wrote.

    Raises:
        CheckpointError: the manifest, the report or the list of checksums can't be read.
    """
    try:
        found = read_plain(folder / CARD)
    except OSError:
        return None
    if (folder / CARD).is_symlink():
        # Nobody wrote into it: what it leads to may be any file of this machine.
        return None
    if recorded_digest(folder, CARD) == digest_bytes(found).sha256:
        return None
    text = found.decode(errors="replace")
    written = _written_for(folder, text)
    if text == written:
        return None
    return "".join(
        difflib.unified_diff(
            written.splitlines(keepends=True),
            text.splitlines(keepends=True),
            "as hubsplice writes it",
            CARD,
            n=1,
        )
    )


def stale_figures(folder: Path) -> tuple[Stale, ...]:
    """The parts of a folder's card whose figures are others than its files give.

    Args:
        folder: what `hubsplice build` wrote, with a card that somebody edited.

    Raises:
        CheckpointError: the card or what it is made from can't be read.
    """
    try:
        text = read_plain(folder / CARD).decode(errors="replace")
    except OSError as error:
        raise CheckpointError(f"{folder / CARD}: cannot be read: {error.strerror}") from None
    return stale_parts(text, _written_for(folder, text))


def _written_for(folder: Path, text: str) -> str:
    """What hubsplice writes for the model that a card's examples load."""
    loads = _MODEL_ID.search(text)
    model_id = None if loads is None else str(json.loads(loads[1]))
    return card_files(folder, model_id=model_id)[CARD]


def write_card(
    folder: Path,
    *,
    model_id: str | None = None,
    license_id: str | None = None,
    keep: bool = False,
) -> Path:
    """Write `README.md` and `card.json` from the folder's manifest, report and recipe, over others.

    The list of checksums in `reproduce/`, which has the card's, is written again. The report, the
    evaluation and the recipe, which gives the title and the description, may be missing.

    Args:
        folder: holds `splice.json`, and perhaps `fidelity.json` and `reproduce/recipe.yaml`.
        model_id: what the examples load; the folder's name where it is None.
        license_id: another licence than the base's, as the Hub writes it (`apache-2.0`).
        keep: leave `README.md` as it is, since somebody edited it.

    Returns:
        The path of the card.

    Raises:
        CheckpointError: the manifest is missing, or one of the files is malformed.
        OutputError: the card can't be written.
    """
    for name, text in card_files(folder, model_id=model_id, license_id=license_id).items():
        if name == CARD and keep:
            continue
        replace_file(folder / name, text)
    # With its checksum in the list, an edited card would pass for hubsplice's own.
    write_checksums(folder, but=(CARD,) if keep else ())
    return folder / CARD
