"""Recipes as YAML files: reading, checking, writing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter

from hubsplice.edits.base import Edit
from hubsplice.errors import CheckpointError, RecipeError
from hubsplice.files.piped import is_pipe, read_named
from hubsplice.files.plain import read_plain
from hubsplice.files.strict_json import parse_object
from hubsplice.recipe.local_paths import TEXTS, map_paths
from hubsplice.recipe.models import BUILTIN, OF_THE_SAE, AnyEdit, Recipe
from hubsplice.recipe.yaml_text import dump_yaml, load_yaml

Model = TypeVar("Model", bound=BaseModel)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a file; relative paths in it are relative to the file's folder.

    Raises:
        RecipeError: the file can't be read, or what it says is not a recipe.
    """
    return _loaded(path, read_plain, path.parent)


def load_named_recipe(path: Path) -> Recipe:
    """The same of what the user named, which may be a pipe: `<(command)` in a shell.

    Relative paths in what comes through a pipe are relative to the current folder.
    """
    return _loaded(path, read_named, Path() if is_pipe(path) else path.parent)


def recorded_recipe(path: Path) -> Recipe:
    """The recipe in a spliced model's files.

    Raises:
        CheckpointError: it can't be read, or it is none; the message names the file.
    """
    try:
        return load_recipe(path)
    except RecipeError as error:
        said = str(error)
        raise CheckpointError(said if said.startswith(f"{path}: ") else f"{path}: {said}") from None


def _loaded(path: Path, read: Callable[[Path], bytes], folder: Path) -> Recipe:
    try:
        text = read(path).decode()
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: expected UTF-8 text: {error}") from None
    return parse_recipe(text, folder=folder)


def parse_recipe(text: str, *, folder: Path) -> Recipe:
    """Parse and validate a recipe.

    Types are not converted: `feature: "12"` and `feature: true` are errors.

    Args:
        text: YAML.
        folder: what relative paths in the recipe are relative to.

    Raises:
        RecipeError: with one line per problem: the field, the value, and what was expected.
    """
    # YAML allows no tab in front of a line, and every other JSON.
    is_json = text.lstrip().startswith("{") and "\t" in text
    raw = _load_json(text) if is_json else load_yaml(text)
    if not isinstance(raw, dict):
        raise RecipeError(f"a recipe is a mapping with base_model and splices, found {raw!r}")
    return with_absolute_paths(Recipe(**raw), folder)


def _load_json(text: str) -> object:
    try:
        return parse_object(text.encode(errors="surrogatepass"), source="recipe")
    except CheckpointError as error:
        raise RecipeError(str(error)) from None


def parsed_edit(content: Mapping[str, object]) -> Edit:
    """One edit, as a recipe or a manifest has it.

    Raises:
        ValueError: it is none.
    """
    edit: Edit = TypeAdapter(AnyEdit).validate_python(dict(content))
    return edit


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out but null; parses to an equal recipe."""
    chosen = recipe.model_dump(mode="json", exclude_defaults=True)
    return dump_yaml(_without_nothing(recipe.model_dump(mode="json"), chosen))


def _without_nothing(value: Any, chosen: Any) -> Any:
    """The value without the nulls in it that are defaults.

    Args:
        value: of a recipe or of a part of it, with all defaults.
        chosen: the same without defaults, as far as anything is left. A null in it is a choice.
    """
    if isinstance(value, dict):
        kept = chosen if isinstance(chosen, dict) else {}
        return {
            name: _without_nothing(part, kept.get(name))
            for name, part in value.items()
            if part is not None or name in kept
        }
    if isinstance(value, list):
        parts = chosen if isinstance(chosen, list) else [None] * len(value)
        return [_without_nothing(*pair) for pair in zip(value, parts, strict=True)]
    return value


def portable(recipe: Recipe) -> Recipe:
    """The recipe with every local path reduced to its last part, for others to read."""
    text = {
        name: getattr(recipe, name).model_copy(
            update={"dataset": _bare(getattr(recipe, name).dataset)}
        )
        for name in TEXTS
    }
    return map_paths(recipe, lambda _field, path: Path(path.name)).model_copy(
        update={"base_model": _bare(recipe.base_model), **text}
    )


def _bare(name: str) -> str:
    return Path(name).name if Path(name).is_absolute() else name


def with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every relative path that it names joined to `folder`.

    `~` is the home folder in all of them.
    """
    recipe = map_paths(recipe, lambda _field, path: (folder / _at_home(path)).absolute())
    text = {
        name: getattr(recipe, name).model_copy(
            update={"dataset": _joined_if_local(getattr(recipe, name).dataset, folder)}
        )
        for name in TEXTS
    }
    base_model = _joined_if_local(recipe.base_model, folder)
    return recipe.model_copy(update={"base_model": base_model, **text})


def _at_home(path: Path) -> Path:
    """The path with `~` replaced, and as it is where nobody knows such a user."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _joined_if_local(name: str, folder: Path) -> str:
    """`name` as an absolute path where it names something local, and `name` itself otherwise.

    What starts with a dot names something local even where it does not exist, so that the error
    shows where it was looked for.
    """
    try:
        if name.startswith("~"):
            return str(_at_home(Path(name)).absolute())
        local = name.startswith(("./", "../")) or (
            name not in (BUILTIN, OF_THE_SAE) and (folder / name).exists()
        )
    except (OSError, ValueError):
        return name
    return str((folder / name).absolute()) if local else name
