"""From a recipe to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.sources import AnyPath, RecipeSource, as_path, as_recipe

if TYPE_CHECKING:
    from hubsplice.building.build import BuildResult
    from hubsplice.compiling.cost import BuildCost


def build(
    recipe: RecipeSource,
    output: AnyPath,
    *,
    require_fidelity: float | None = None,
    measure: bool = True,
    hard_link: bool = False,
    allow_failed: bool = False,
    allow_misfit: bool = False,
    progress: ProgressChoice = True,
    on_cost: Callable[[BuildCost], None] | None = None,
) -> BuildResult:
    """Compile a recipe into a checkpoint, and measure how faithful it is to the exact hook.

    The folder appears whole or not at all.

    Args:
        recipe: a `Recipe`, its fields as a mapping, or the path of a YAML file.
        output: the folder of the new checkpoint; it must be missing or empty.
        require_fidelity: the largest ratio of splice error to noise floor that passes; the
            recipe's `fidelity.require` where it is not given.
        measure: whether to measure the fidelity of the result.
        hard_link: whether to link unchanged weight files instead of copying them. A later write
            into one then changes both.
        allow_failed: whether to keep a result that misses the fidelity that it requires.
        allow_misfit: whether to use an SAE that explains nothing of the base's residual stream.
        progress: True for bars in a terminal or a notebook, False for none, or a function that
            gets the name of a step, how much is done, and how much there is.
        on_cost: told what the build takes, before it reads anything large.

    Returns:
        The folder, the fidelity report, and warnings. It shows the verdict first.

    Raises:
        FidelityError: the requirement is not met. Nothing is left behind.
        RecipeError: the recipe asks for what is malformed, unknown or out of range.
        UnsupportedError: the model, the SAE or the edit can't be compiled faithfully, or the SAE
            does not fit the model.
        CheckpointError: files are missing or damaged.
        OutputError: the folder is not empty, or it can't be written.
    """
    parsed = as_recipe(recipe)
    # A mistake in the recipe is shown before the compiler's imports, which take seconds.
    from hubsplice.building.build import build as build_recipe

    with reporting(progress) as report:
        return build_recipe(
            parsed,
            output=as_path(output),
            require_fidelity=require_fidelity,
            measure=measure,
            hard_link=hard_link,
            progress=report,
            allow_failed=allow_failed,
            allow_misfit=allow_misfit,
            on_cost=on_cost,
        )
