"""`hubsplice cache`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubsplice.cli.app import AsJson
from hubsplice.terminal import print_json, print_line


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything that is kept.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show, or clear, the work that is kept from one run to the next.

    These are streams of base models before any edit. They save time when a recipe is built with
    another strength, or a killed build runs again. HUBSPLICE_CACHE is the folder, and
    HUBSPLICE_CACHE_LIMIT the most that is kept (10GB; 0 for nothing).
    """
    from hubsplice.files.space import readable_size
    from hubsplice.streams.kept import clear_kept, kept_files, kept_folder, kept_limit

    folder, limit = kept_folder(), kept_limit()
    cleared = clear_kept() if clear else 0
    files = kept_files()
    size = sum(file.size for file in files)
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "files": len(files),
                "bytes": size,
                "limit_bytes": None if limit == float("inf") else int(limit),
                "cleared_bytes": cleared,
            }
        )
        return
    if clear:
        print_line(f"{folder}: removed {readable_size(cleared)}")
        return
    most = "any size" if limit == float("inf") else readable_size(int(limit))
    streams = "1 stream" if len(files) == 1 else f"{len(files)} streams"
    print_line(f"{folder}: {streams}, {readable_size(size)} of at most {most}")
    if files:
        print_line("`hubsplice cache --clear` removes them")
