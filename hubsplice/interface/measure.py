"""The fidelity of a checkpoint that was built."""

from __future__ import annotations

from os import fspath
from typing import TYPE_CHECKING

from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.sources import AnyPath, as_path

if TYPE_CHECKING:
    from hubsplice.fidelity.report import FidelityReport


def measure(
    folder: AnyPath,
    *,
    base: AnyPath | None = None,
    carrier: AnyPath | None = None,
    require_fidelity: float | None = None,
    progress: ProgressChoice = True,
) -> FidelityReport:
    """Measure a built checkpoint against its exact hook again; its report and card are rewritten.

    Args:
        folder: what `build` wrote, or a download of it.
        base: the base model, where the checkpoint was made from a local folder.
        carrier: of an adapter, the folder or the Hub repository of what it is for.
        require_fidelity: the largest ratio of splice error to noise floor that passes; what the
            earlier report was held to where it is not given.
        progress: as in `build`.

    Returns:
        The report. It shows the verdict first.

    Raises:
        FidelityError: the requirement is not met; report and card say so.
        RecipeError: `base` is needed, or is no model.
        CheckpointError: hubsplice did not build the folder, or the base is another one.
    """
    from hubsplice.building.measure import measure as measure_folder
    from hubsplice.interface.adapters import open_carrier

    with reporting(progress) as report:
        return measure_folder(
            as_path(folder),
            base=None if base is None else fspath(base),
            require_fidelity=require_fidelity,
            progress=report,
            carrier=None if carrier is None else open_carrier(carrier, None),
        )
