"""Reading and writing recipes."""

from __future__ import annotations

from hubsplice.errors import OutputError
from hubsplice.interface.sources import AnyPath, as_path, as_recipe
from hubsplice.recipe import reading
from hubsplice.recipe.models import Recipe


def load_recipe(path: AnyPath) -> Recipe:
    """Read a recipe from a YAML file.

    Args:
        path: the file, or a pipe. Relative paths in it are relative to the file's folder, and in
            what comes through a pipe to the current one.

    Raises:
        RecipeError: the file can't be read, or it is not a recipe: one line per problem, with the
            field, the value and what was expected.
    """
    return reading.load_named_recipe(as_path(path))


def dump_recipe(recipe: Recipe, path: AnyPath | None = None) -> str:
    """Write a recipe as YAML, with every default.

    Args:
        recipe: the recipe.
        path: a file to write it to, if any; an existing file is overwritten. Paths in it become
            absolute.

    Returns:
        The YAML.

    Raises:
        OutputError: the file can't be written.
    """
    text = reading.dump_recipe(as_recipe(recipe))
    if path is not None:
        try:
            as_path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    return text
