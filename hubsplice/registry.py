"""A registry of things by name. It refuses duplicates, and reads entry points of other packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from hubsplice.errors import RecipeError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes or declarations by name, filled by modules and by an entry-point group.

    A third party adds to it by declaring, in its own package,

        [project.entry-points."hubsplice.edits"]
        my_kind = "my_package.my_module"

    where importing the module registers what it holds.
    """

    def __init__(self, group: str) -> None:
        self.group = group
        self._entries: dict[str, T] = {}
        self._entry_points_loaded = False

    def add(self, name: str, entry: T) -> T:
        """Register an entry under `name`, and give it back.

        Raises:
            ValueError: the name is taken by another entry.
        """
        if name in self._entries and self._entries[name] is not entry:
            raise ValueError(f"{self.group}: {name!r} is registered already")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Register the decorated class under `name`; raises as `add` does."""
        return lambda entry: self.add(name, entry)

    def _load_entry_points(self) -> None:
        if self._entry_points_loaded:
            return
        self._entry_points_loaded = True
        for point in entry_points(group=self.group):
            point.load()

    def get(self, name: str, field: str) -> T:
        """What is registered under `name`; `field` says where the name was written.

        Raises:
            RecipeError: no such name, with the nearest one.
        """
        self._load_entry_points()
        if name not in self._entries:
            raise RecipeError(unknown_name(field, name, self._entries))
        return self._entries[name]

    def items(self) -> Iterator[tuple[str, T]]:
        """All registered names and entries, in alphabetical order."""
        self._load_entry_points()
        return iter(sorted(self._entries.items()))
