"""The local files and folders that a recipe names, by the field that names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from hubsplice.recipe.models import Recipe

Model = TypeVar("Model", bound=BaseModel)

TEXTS = ("calibration", "fidelity")
"""The sections whose dataset may be a local file or folder."""


def local_paths(recipe: Recipe) -> dict[str, Path]:
    """Every SAE, vector, probe and text of a recipe that is local, in the recipe's order.

    Neither the base nor what the card shows is among them: no layer is made from that.

    Args:
        recipe: with absolute paths, as `load_recipe` gives it.

    Returns:
        By field, such as `splices[0].edits[1].vector.path`.
    """
    found: dict[str, Path] = {}

    def note(field: str, path: Path) -> Path:
        if not field.startswith("card."):
            found[field] = path
        return path

    map_paths(recipe, note)
    for section in TEXTS:
        dataset = Path(getattr(recipe, section).dataset).expanduser()
        if dataset.is_absolute():
            found[f"{section}.dataset"] = dataset
    return found


def with_local_paths(recipe: Recipe, paths: Mapping[str, Path]) -> Recipe:
    """The recipe with other paths in some fields, which are named as `local_paths` does."""
    changed = map_paths(recipe, lambda field, path: paths.get(field, path))
    texts = {
        section: getattr(changed, section).model_copy(update={"dataset": str(paths[field])})
        for section in TEXTS
        if (field := f"{section}.dataset") in paths
    }
    return changed.model_copy(update=texts)


def map_paths(model: Model, change: Callable[[str, Path], Path], field: str = "") -> Model:
    """A recipe, or a part of one, with other paths in the place of its own.

    Args:
        model: the recipe or part.
        change: gives the other path, from the field's name and its path.
        field: what the part is called.
    """
    prefix = f"{field}." if field else ""
    return model.model_copy(
        update={
            name: _mapped_value(getattr(model, name), f"{prefix}{name}", change)
            for name in type(model).model_fields
        }
    )


def _mapped_value(value: Any, field: str, change: Callable[[str, Path], Path]) -> Any:
    if isinstance(value, Path):
        return change(field, value)
    if isinstance(value, BaseModel):
        return map_paths(value, change, field)
    if isinstance(value, tuple):
        return tuple(_mapped_value(item, f"{field}[{i}]", change) for i, item in enumerate(value))
    return value
