"""Where a recipe is built for publishing, so that a second run finds what the first one made."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubsplice import __version__
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.reading import dump_recipe

BUILDS = Path("builds")


def build_place(recipe: Recipe, repo_id: str) -> Path:
    """A folder of its own for everything that a build depends on.

    The name changes with the recipe, the version of hubsplice, and the local files that the
    recipe names (by size and time of change). A model on the Hub whose revision the recipe leaves
    open may have moved since: the build records the commit that it was made from.
    """
    digest = hashlib.sha256(f"{__version__}\n{dump_recipe(recipe)}".encode())
    for path in sorted(set(_local_paths(recipe.model_dump()))):
        for file in _files(path):
            status = file.stat()
            digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return BUILDS / f"{repo_id.split('/')[-1]}-{digest.hexdigest()[:8]}"


def _local_paths(value: Any) -> Iterator[Path]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _local_paths(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _local_paths(item)
    elif isinstance(value, Path) or (isinstance(value, str) and Path(value).is_absolute()):
        yield Path(value)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names)
