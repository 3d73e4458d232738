"""What users give for a recipe or a path, as the library's own types."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from hubsplice.errors import RecipeError
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.reading import load_named_recipe, with_absolute_paths

AnyPath = str | PathLike[str]
"""A path."""

RecipeSource = Recipe | Mapping[str, Any] | AnyPath
"""A recipe, its fields as a mapping, or the path of its YAML file."""


def as_path(path: AnyPath) -> Path:
    """The path, with `~` for the home folder."""
    return Path(path).expanduser()


def as_interpreter(python: AnyPath | None) -> Path:
    """The Python interpreter of an engine's environment; this one where none is named."""
    return Path(sys.executable) if python is None else as_path(python)


def is_recipe_path(source: AnyPath) -> bool:
    """Whether this is the path of a recipe's YAML file, by its ending."""
    return Path(source).suffix in (".yaml", ".yml")


def as_recipe(source: RecipeSource) -> Recipe:
    """The recipe, with absolute paths.

    Relative paths are relative to the folder of a recipe's file, and to the current folder where
    the recipe comes from no file.

    Raises:
        RecipeError: it is no recipe, or its file can't be read.
    """
    if isinstance(source, str | PathLike):
        return load_named_recipe(as_path(source))
    if isinstance(source, Mapping):
        source = Recipe(**source)
    if not isinstance(source, Recipe):
        raise RecipeError(f"found {source!r:.80}, expected a recipe, a mapping or a path")
    return with_absolute_paths(source, Path.cwd())
