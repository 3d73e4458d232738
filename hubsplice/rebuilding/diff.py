"""`hubsplice diff`: two recipes, or two spliced models, and what is not the same."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field
from safetensors import safe_open

from hubsplice.building.environment import ENVIRONMENT, read_environment
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import Manifest, TermRecord, read_manifest
from hubsplice.errors import CheckpointError, HubspliceError, RecipeError, blamed_on
from hubsplice.files.piped import is_pipe
from hubsplice.files.plain import exists, is_folder, is_plain
from hubsplice.files.safetensors_header import read_header
from hubsplice.intervention.saved import RECIPE
from hubsplice.rebuilding.recipe_changes import Change, recipe_changes
from hubsplice.rebuilding.tensors import TensorDifference, absent, tensor_difference
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.reading import load_named_recipe, portable, recorded_recipe
from hubsplice.rendering.content import Line, Part, Table, Tone
from hubsplice.rendering.rendered import Rendered
from hubsplice.verifying.result import Record
from hubsplice.verifying.source import Published, find_published

_DESCRIBED = (MANIFEST, RECIPE, ENVIRONMENT)


class Differences(Rendered, Record):
    """Two recipes or two spliced models.

    Attributes:
        a: the one, as it was named.
        b: the other.
        kind: `recipes` or `models`.
        same: whether nothing differs.
        changes: what does, from `a` to `b`.
        tensors: the inserted tensors that do, of models; found is `a`'s, expected is `b`'s.
        compared: how many of them were compared.
    """

    a: str
    b: str
    kind: Literal["recipes", "models"]
    same: bool
    changes: tuple[Change, ...]
    tensors: tuple[TensorDifference, ...] = ()
    compared: int = Field(0, description="How many inserted tensors were compared.")

    def content(self) -> Iterable[Part]:
        """Whether they are the same, and every change."""
        yield Line(self.verdict, Tone.STRONG)
        if self.changes:
            rows = tuple((change.about, change.change) for change in self.changes)
            yield Table.of_text(("what", "change"), rows, "")
        yield from (Line(str(tensor)) for tensor in self.tensors)

    @property
    def verdict(self) -> str:
        """One sentence."""
        tensors = f", with {self.compared} inserted tensors alike" if self.compared else ""
        if self.same:
            return f"The same: two {self.kind} without a difference{tensors}."
        differing = f" and {len(self.tensors)} of {self.compared} inserted tensors"
        counted = f"{len(self.changes)} change{'' if len(self.changes) == 1 else 's'}"
        return (
            f"Different: {counted}{differing if self.compared else ''}, from {self.a} to {self.b}."
        )


def diff(a: str, b: str) -> Differences:
    """Compare two recipes, or two spliced models.

    Args:
        a: a recipe's file, a spliced model's folder, or its Hub repository, `owner/name` or
            `owner/name@revision`.
        b: the other one, of the same kind.

    Raises:
        RecipeError: one is a recipe and the other a model, or there is no such thing.
        HubspliceError: one of them can't be read.
    """
    recipes = [_is_recipe(name) for name in (a, b)]
    if all(recipes):
        here, there = (_recipe(name) for name in (a, b))
        changes = tuple(recipe_changes(here, there))
        return Differences(a=a, b=b, kind="recipes", same=not changes, changes=changes)
    if any(recipes):
        recipe, other = (a, b) if recipes[0] else (b, a)
        if not exists(Path(other).expanduser()):
            raise RecipeError(f"{other}: there is no such file to compare {recipe} with")
        raise RecipeError(
            f"{recipe} is a recipe, and {other} is a folder; the recipe of a spliced model is its "
            f"file {RECIPE}"
        )
    left, right = (_Model.open(name) for name in (a, b))
    changes = tuple(_model_changes(left, right))
    tensors, compared = _tensors(left, right)
    return Differences(
        a=left.published.name,
        b=right.published.name,
        kind="models",
        same=not changes and not tensors,
        changes=changes,
        tensors=tensors,
        compared=compared,
    )


def _is_recipe(name: str) -> bool:
    path = Path(name).expanduser()
    if is_plain(path) or is_pipe(path):
        return True
    if exists(path) and not is_folder(path):
        raise RecipeError(f"{name}: it is neither a file nor a folder")
    return False


def _recipe(name: str) -> Recipe:
    try:
        return portable(load_named_recipe(Path(name).expanduser()))
    except RecipeError as error:
        said = str(error)
        raise RecipeError(said if said.startswith(f"{name}: ") else f"{name}: {said}") from None


@dataclass(frozen=True, eq=False)
class _Model:
    published: Published
    manifest: Manifest

    @staticmethod
    def open(name: str) -> _Model:
        repo_id, _, revision = name.partition("@")
        local = exists(Path(name).expanduser())
        published = find_published(
            name if local else repo_id, None if local else revision or None, _DESCRIBED
        )
        return _Model(published, read_manifest(published.folder / MANIFEST))

    @property
    def folder(self) -> Path:
        return self.published.folder

    def added_file(self) -> Path | None:
        """The file of inserted tensors, downloaded; None where the splice added none."""
        files = sorted(
            n for n in self.manifest.files if n.endswith(".safetensors") and "/" not in n
        )
        base = [name for name in self.manifest.base.files if name.endswith(".safetensors")]
        # The base's files come first; a splice puts what it adds into one of its own behind them.
        if len(files) != len(base) + 1:
            return None
        if self.published.repo_id is not None:
            find_published(self.published.repo_id, self.folder.name, [glob.escape(files[-1])])
        return self.folder / files[-1]


def _model_changes(a: _Model, b: _Model) -> Iterator[Change]:
    here, there = a.manifest, b.manifest
    yield from _recipes(a, b)
    yield from _value("base", "name", here.base.name, there.base.name)
    yield from _value("base", "commit", here.base.commit, there.base.commit)
    weights = [
        sorted(d.sha256 for n, d in m.base.files.items() if n.endswith(".safetensors"))
        for m in (here, there)
    ]
    if weights[0] != weights[1]:
        yield Change(about="base", change="weights: other files")
    yield from _value("precision", "compiled for", here.dtype, there.dtype)
    yield from _value("class", "served as", here.architectures.after, there.architectures.after)
    places = [", ".join(str(layer.place) for layer in m.layers) for m in (here, there)]
    yield from _value("layers", "inserted after", *(p or "none" for p in places))
    yield from _terms(here, there)
    text = [m.calibration.token_ids_sha256[:12] if m.calibration else None for m in (here, there)]
    yield from _value("text", "calibration tokens (sha256)", *text)
    yield from _value("verdict", "fidelity", *(m.fidelity.get("verdict") for m in (here, there)))
    yield from _value("verdict", "ratio", *(m.fidelity.get("ratio") for m in (here, there)))
    yield from _environments(a, b)


def _recipes(a: _Model, b: _Model) -> Iterator[Change]:
    try:
        here, there = (portable(recorded_recipe(model.folder / RECIPE)) for model in (a, b))
    except HubspliceError as error:
        yield Change(about="recipe", change=f"not compared: {error}")
        return
    yield from recipe_changes(here, there)


def _terms(a: Manifest, b: Manifest) -> Iterator[Change]:
    """What strengths and sources came to, of the edits that both have."""
    here, there = _by_label(a), _by_label(b)
    for key, term in here.items():
        other = there.get(key)
        if other is None:
            continue
        where = f"after layer {key[0]}: {key[1]}"
        yield from _value("edits", f"{where}: formula", term.formula, other.formula)
        for one, two in zip(term.amounts, other.amounts, strict=False):
            yield from _value("edits", f"{where}: {one.stated} comes to", one.value, two.value)
        yield from _value(
            "edits", f"{where}: weights of its source", term.source_sha256, other.source_sha256
        )


def _by_label(manifest: Manifest) -> dict[tuple[str, str], TermRecord]:
    return {
        (str(edits.place), term.label): term for edits in manifest.edits for term in edits.terms
    }


def _environments(a: _Model, b: _Model) -> Iterator[Change]:
    if not any(exists(model.folder / ENVIRONMENT) for model in (a, b)):
        yield from _value("environment", "hubsplice", a.manifest.hubsplice, b.manifest.hubsplice)
        return
    try:
        found = read_environment(a.folder).differences(read_environment(b.folder))
    except CheckpointError as error:
        yield Change(about="environment", change=f"not compared: {error}")
        return
    for line in found:
        name, _, values = line.partition(": ")
        yield Change(about="environment", change=f"{name}: {values.replace(', ', ' → ', 1)}")


def _tensors(a: _Model, b: _Model) -> tuple[tuple[TensorDifference, ...], int]:
    here, there = a.added_file(), b.added_file()
    if here is None or there is None:
        return (), 0
    for path in (here, there):
        # Says what is wrong with a damaged file, and which of the two it is.
        read_header(path)
    with (
        blamed_on(f"{here}, {there}"),
        safe_open(here, framework="pt") as left,
        safe_open(there, framework="pt") as right,
    ):
        names, others = list(left.keys()), list(right.keys())
        found = [
            tensor_difference(name, left.get_tensor(name), right.get_tensor(name))
            for name in names
            if name in others
        ]
    alone: Mapping[str, str] = {
        **{name: "only in the first model" for name in names if name not in others},
        **{name: "only in the second model" for name in others if name not in names},
    }
    differences = [difference for difference in found if difference is not None]
    differences += [absent(name, problem) for name, problem in alone.items()]
    return tuple(differences), len(found) + len(alone)


def _value(about: str, name: str, a: object, b: object) -> Iterator[Change]:
    if a != b:
        shown = ["nothing" if value is None else value for value in (a, b)]
        yield Change(about=about, change=f"{name}: {shown[0]} → {shown[1]}")
