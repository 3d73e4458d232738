"""Two recipes or two spliced checkpoints, compared."""

from __future__ import annotations

from os import fspath
from typing import TYPE_CHECKING

from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.sources import AnyPath

if TYPE_CHECKING:
    from hubsplice.rebuilding.diff import Differences


def diff(a: AnyPath, b: AnyPath, *, progress: ProgressChoice = True) -> Differences:
    """Say what differs between two recipes, or two spliced checkpoints.

    Of a checkpoint on the Hub, only its records and its inserted tensors are downloaded.

    Args:
        a: a recipe's file, a spliced checkpoint's folder, or its Hub repository, also as
            `owner/name@revision`.
        b: another one of the same kind.
        progress: whether downloads are shown, as in `build`.

    Returns:
        Every change from `a` to `b`, and in `same` whether there is none.

    Raises:
        RecipeError: one is a recipe and the other is none, or there is no such file.
        CheckpointError: a checkpoint can't be read.
        HubError: the Hub refuses, or can't be reached.
    """
    from hubsplice.rebuilding.diff import diff as compare

    with reporting(progress):
        return compare(fspath(a), fspath(b))
