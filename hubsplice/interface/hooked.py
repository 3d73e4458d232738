"""The exact edit on a transformers model, while a `with` block lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING

from hubsplice.interface.lower import lower
from hubsplice.interface.progress import ProgressChoice
from hubsplice.interface.sources import RecipeSource, is_recipe_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hubsplice.checkpoint.manifest import Manifest
    from hubsplice.intervention.intervention import Intervention


@contextmanager
def hooked(
    model: PreTrainedModel,
    edit: Intervention | RecipeSource,
    *,
    progress: ProgressChoice = True,
) -> Iterator[Intervention]:
    """Apply the exact edit to a transformers model while the context lasts.

    Each hook reads the residual stream, of shape [batch, tokens, hidden size], computes the edit
    in float32, and gives the stream back in its own dtype. An edit between attention and MLP
    writes in place, and so it works in inference only.

        with hubsplice.hooked(model, "my-model"):
            model.generate(**inputs)

    Args:
        model: the base model as transformers loads it; the spliced checkpoint makes the edit by
            itself, and is refused.
        edit: an `Intervention`; the folder or the Hub repository of a built checkpoint, which
            carries one; or a recipe as in `build`, which is calibrated first (see `lower`).
        progress: as in `build`, for the calibration.

    Yields:
        The intervention.

    Raises:
        RecipeError: the edit does not fit the model, or there is no such folder or repository.
        CheckpointError: the checkpoint carries no intervention, or a damaged one.
        HubspliceError: as `build` raises, where a recipe is calibrated.
    """
    from hubsplice.interface.fit import require_base, require_fit
    from hubsplice.intervention.intervention import Intervention
    from hubsplice.streams import model as streams

    if isinstance(edit, Intervention):
        intervention = edit
    elif isinstance(edit, str | PathLike) and not is_recipe_path(edit):
        intervention, manifest = _carried(fspath(edit))
        require_base(model, manifest)
    else:
        intervention = lower(edit, progress=progress)
    require_fit(model, intervention)
    with streams.hooked(model, intervention):
        yield intervention


def _carried(checkpoint: str) -> tuple[Intervention, Manifest]:
    from hubsplice.checkpoint.companions import MANIFEST
    from hubsplice.checkpoint.manifest import read_manifest
    from hubsplice.intervention.saved import INTERVENTION, load_intervention
    from hubsplice.verifying.source import find_published

    folder = find_published(checkpoint, None, (MANIFEST, INTERVENTION)).folder
    return load_intervention(folder / INTERVENTION), read_manifest(folder / MANIFEST)
