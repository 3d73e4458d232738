"""What the inserted layers of a spliced checkpoint do, from their weights."""

from __future__ import annotations

from os import fspath
from typing import TYPE_CHECKING

from hubsplice.interface.sources import AnyPath

if TYPE_CHECKING:
    from hubsplice.verifying.inspect import Inspection


def inspect(
    model: AnyPath, *, revision: str | None = None, sae: AnyPath | None = None
) -> Inspection:
    """Say what the inserted layers of a spliced checkpoint do, from their weights.

    Needs no base, no text and no model in memory. Of a repository, only the bytes of
    inserted layers are downloaded.

    Args:
        model: the checkpoint's folder, or its Hub repository.
        revision: the repository's commit, branch or tag.
        sae: an SAE whose features the edits are compared with: named as for
            `find`.

    Returns:
        For every splice the neurons in use, the parts of its edits with the strengths and
        thresholds that the weights hold, and what has no part in them.

    Raises:
        RecipeError: no such folder, repository or SAE.
        CheckpointError: a file is missing or damaged.
        HubError: the Hub refuses, or can't be reached.
    """
    from hubsplice.verifying.inspect import inspect as inspect_model

    return inspect_model(fspath(model), revision=revision, sae=None if sae is None else fspath(sae))
