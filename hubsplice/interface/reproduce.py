"""A spliced checkpoint, built again from its own recipe."""

from __future__ import annotations

from collections.abc import Iterable
from os import fspath
from typing import TYPE_CHECKING

from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.sources import AnyPath, as_path

if TYPE_CHECKING:
    from hubsplice.rebuilding.grade import Reproduction


def reproduce(
    model: AnyPath,
    *,
    base: AnyPath | None = None,
    revision: str | None = None,
    sources: Iterable[AnyPath] = (),
    output: AnyPath | None = None,
    progress: ProgressChoice = True,
) -> Reproduction:
    """Build a spliced checkpoint again from the recipe that it carries, and say how near it comes.

    The base's own tensors are not written again; `verify` proves those.

    Args:
        model: the checkpoint's folder, or its Hub repository.
        base: the base model, where it is not the repository that the manifest names.
        revision: the repository's commit, branch or tag.
        sources: local SAEs, vectors, probes and texts that the recipe names, or folders that hold
            them. They are known by their content.
        output: a new folder for the rebuilt files; none is kept where it is not given.
        progress: as in `build`.

    Returns:
        The grade (`same bytes`, `same within rounding` or `different`) and what differs. A
        difference raises no error.

    Raises:
        RecipeError: a local file that the recipe needs is not there, or a revision is gone.
        CheckpointError: the checkpoint says too little of its build, or the base or an SAE is not
            what it was made from.
        HubError: the Hub refuses, or can't be reached.
        OutputError: `output` is not empty, or can't be written.
    """
    from hubsplice.rebuilding.reproduce import reproduce as reproduce_model

    with reporting(progress) as report:
        return reproduce_model(
            fspath(model),
            base=None if base is None else fspath(base),
            revision=revision,
            sources=[as_path(source) for source in sources],
            output=None if output is None else as_path(output),
            progress=report,
        )
