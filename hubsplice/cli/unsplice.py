"""`hubsplice unsplice`."""

from __future__ import annotations

from dataclasses import asdict

from hubsplice.cli.app import AsJson, NewFolder, SplicedFolder
from hubsplice.terminal import print_content, print_json


def unsplice(
    folder: SplicedFolder,
    output: NewFolder,
    as_json: AsJson = False,
) -> None:
    """Give the base back from a spliced checkpoint.

    Takes out what the splice added, and names the base's tensors as they were: their bytes never
    moved. The base itself is not needed. Says which files are the base's byte for byte, and what a
    spliced checkpoint doesn't hold.
    """
    from hubsplice.interface.unsplice import unsplice as unsplice_folder

    result = unsplice_folder(folder, output)
    if as_json:
        print_json(asdict(result) | {"folder": str(result.folder), "verdict": result.verdict})
    else:
        print_content(result.content())
