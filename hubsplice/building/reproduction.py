"""`reproduce/`: everything that building a checkpoint again needs, beside the base and its SAEs."""

from __future__ import annotations

from pathlib import Path

from hubsplice.building.environment import (
    ENVIRONMENT,
    REQUIREMENTS,
    this_environment,
    write_environment,
)
from hubsplice.building.sources import SOURCES, describe_sources, write_sources
from hubsplice.compiling.compiler import Compiled
from hubsplice.compiling.open_plan import OpenPlan
from hubsplice.intervention.saved import INTERVENTION, RECIPE, save_intervention
from hubsplice.recipe.models import BUILTIN, Recipe
from hubsplice.recipe.pinned import with_text_commits
from hubsplice.recipe.reading import dump_recipe, portable
from hubsplice.text.sequences import TokenSequences

REPRODUCTION = (INTERVENTION, RECIPE, SOURCES, ENVIRONMENT, REQUIREMENTS)
"""The files in it that the manifest lists; the list of checksums is written when all else is."""


def write_reproduction(
    plan: OpenPlan, compiled: Compiled, held_out: TokenSequences | None, folder: Path
) -> None:
    """Write `reproduce/` to a new checkpoint.

    Args:
        plan: what was asked for.
        compiled: what it compiled to.
        held_out: the text that it was measured on, if it was.
        folder: the checkpoint.

    Raises:
        CheckpointError: a local file that the recipe names can't be read any more.
        OutputError: the intervention can't be written.
    """
    (folder / RECIPE).parent.mkdir()
    recipe = portable(_pinned(plan.recipe, compiled.text.sequences, held_out))
    (folder / RECIPE).write_text(dump_recipe(recipe), encoding="utf-8")
    save_intervention(compiled.intervention, folder / INTERVENTION)
    write_sources(describe_sources(plan.recipe), folder)
    write_environment(this_environment(), folder)


def _pinned(recipe: Recipe, calibration: TokenSequences, held_out: TokenSequences | None) -> Recipe:
    """The recipe with the commits of the Hub datasets that were read."""
    read = {"calibration": calibration, "fidelity": held_out}
    # Built-in text is versioned too, by no commit; a local file by none at all.
    return with_text_commits(
        recipe,
        {
            section: text.revision
            for section, text in read.items()
            if text is not None
            and text.revision is not None
            and getattr(recipe, section).dataset != BUILTIN
        },
    )
