"""The base of a spliced checkpoint, given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.sources import AnyPath, as_path

if TYPE_CHECKING:
    from hubsplice.rebuilding.unsplice import Unspliced


def unsplice(folder: AnyPath, output: AnyPath, *, progress: ProgressChoice = True) -> Unspliced:
    """Give the base back from a spliced checkpoint, without the base.

    The tensors have the bytes that they had. The output appears whole or not at all.

    Args:
        folder: what `build` wrote, or a download of it.
        output: the folder of the base; it must be missing or empty.
        progress: as in `build`.

    Returns:
        Which files are the base's byte for byte, which say the same in other bytes, and which the
        spliced checkpoint doesn't hold.

    Raises:
        RecipeError: there is no such folder.
        CheckpointError: hubsplice did not build the folder, or a file in it was altered.
        UnsupportedError: the base's family is not known.
        OutputError: the output is not empty, or can't be written.
    """
    from hubsplice.rebuilding.unsplice import unsplice as unsplice_folder

    with reporting(progress) as report:
        return unsplice_folder(as_path(folder), as_path(output), report)
