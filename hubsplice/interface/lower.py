"""From a recipe to its exact hook, without a build."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.sources import RecipeSource, as_recipe

if TYPE_CHECKING:
    from hubsplice.intervention.intervention import Intervention


def lower(
    recipe: RecipeSource, *, allow_misfit: bool = False, progress: ProgressChoice = True
) -> Intervention:
    """Turn a recipe into the exact edit that a build of it stands for.

    The base model runs over the calibration text in float32, which gives strengths in units of
    `max` and `norm`, and the norm above which a token is an attention sink. The build makes the
    same intervention, number for number.

    Args:
        recipe: a `Recipe`, its fields as a mapping, or the path of a YAML file.
        allow_misfit: as in `build`.
        progress: as in `build`.

    Returns:
        The edit, for `hooked`. What it does not reproduce of the features, such as the
        competition in a TopK SAE, and what may not be what was meant, are Python warnings.

    Raises:
        HubspliceError: as `build` raises.
    """
    parsed = as_recipe(recipe)
    from hubsplice.compiling.calibrated import calibrate
    from hubsplice.compiling.conditions import condition_doubts
    from hubsplice.compiling.misfits import require_fit
    from hubsplice.compiling.open_plan import open_plan
    from hubsplice.compiling.plan import make_plan

    with reporting(progress) as report:
        plan = open_plan(make_plan(parsed))
        calibrated = calibrate(plan, report)
    if not allow_misfit:
        require_fit(plan.splices, calibrated.splices)
    for splice in calibrated.splices:
        doubts = condition_doubts(splice.conditions)
        for doubt in (*splice.approximations, *splice.warnings, *doubts):
            warnings.warn(doubt, stacklevel=2)
    return calibrated.intervention
