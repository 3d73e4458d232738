"""What differs between two recipes, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from hubsplice.card.phrases import condition_words
from hubsplice.edits.base import Edit
from hubsplice.recipe.local_paths import TEXTS
from hubsplice.recipe.models import Recipe, Splice
from hubsplice.verifying.result import Record

_NAMES = ("title", "description", "publish")


class Change(Record):
    """One thing that is not the same."""

    about: str = Field(description="Such as `edits`, `text` or `precision`.")
    change: str = Field(description="A phrase.")

    def __str__(self) -> str:
        return f"{self.about}: {self.change}"


def recipe_changes(a: Recipe, b: Recipe) -> Iterator[Change]:
    """What `b` asks for that `a` does not, and the other way round."""
    for about, name in (("base", "base_model"), ("base", "revision"), ("precision", "dtype")):
        yield from _value(about, name, getattr(a, name), getattr(b, name))
    yield from _splice_changes(a.splices, b.splices)
    for section in TEXTS:
        found, other = (r.model_dump(mode="json")[section] for r in (a, b))
        for name in found:
            about = "required fidelity" if name == "require" else "text"
            yield from _value(about, f"{section}.{name}", found[name], other[name])
    if a.prompts != b.prompts:
        kept = len([prompt for prompt in a.prompts if prompt in b.prompts])
        yield Change(
            about="text",
            change=f"prompts: {len(a.prompts)} → {len(b.prompts)}, of which {kept} are the same",
        )
    yield from _value("seed", "seed", a.seed, b.seed)
    for name in _NAMES:
        found, other = (r.model_dump(mode="json")[name] for r in (a, b))
        yield from _value("name", name, found, other)


def edit_text(edit: Mapping[str, Any]) -> str:
    """An edit in a line: `scale (feature 5, factor 4)`."""
    given = {k: v for k, v in edit.items() if k not in ("kind", "label") and v is not None}
    if "when" in given:
        # What is done, then where.
        given["when"] = given.pop("when")
    listed = ", ".join(_named(name, value) for name, value in given.items())
    return f"{edit['kind']} ({listed})" if listed else str(edit["kind"])


def _named(name: str, value: Any) -> str:
    is_condition = name == "when" and isinstance(value, Mapping)
    return f"{'where' if is_condition else name} {_field(name, value)}"


def _field(name: str, value: Any) -> str:
    """A field's value in words."""
    if name == "when" and isinstance(value, Mapping):
        return condition_words(value)
    return _shown(value)


def _splice_changes(a: Sequence[Splice], b: Sequence[Splice]) -> Iterator[Change]:
    here, there = ({_place(splice): splice for splice in splices} for splices in (a, b))
    for place in dict.fromkeys((*here, *there)):
        before, after = here.get(place), there.get(place)
        if before is None or after is None:
            splice, what = (after, "new") if before is None else (before, "gone")
            assert splice is not None
            edits = "; ".join(edit_text(_dumped(edit)) for edit in splice.edits) or "no edits"
            yield Change(about="splices", change=f"{place}: {what}: {edits}")
            continue
        for name in ("sae", "sinks", "sink_multiple", "construction"):
            found, other = (s.model_dump(mode="json")[name] for s in (before, after))
            yield from _value("splices", f"{place}: {name}", found, other)
        yield from _edit_changes(place, before.edits, after.edits)


def _edit_changes(place: str, a: Sequence[Edit], b: Sequence[Edit]) -> Iterator[Change]:
    gone, new = [_dumped(edit) for edit in a], [_dumped(edit) for edit in b]
    for edit in list(gone):
        if edit in new:
            gone.remove(edit)
            new.remove(edit)
    # The same kind of edit of the same feature or vector, then another kind of the same feature.
    for same in (("kind", "feature", "vector", "contrast"), ("feature",)):
        for edit in list(gone):
            key = [edit.get(name) for name in same]
            match = next((e for e in new if [e.get(name) for name in same] == key), None)
            if match is None or not any(key[1:] or key):
                continue
            gone.remove(edit)
            new.remove(match)
            yield Change(about="edits", change=f"{place}: {_changed(edit, match)}")
    yield from (Change(about="edits", change=f"{place}: gone: {edit_text(e)}") for e in gone)
    yield from (Change(about="edits", change=f"{place}: new: {edit_text(e)}") for e in new)


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    if a["kind"] != b["kind"]:
        return f"{edit_text(a)} → {edit_text(b)}"
    names = [name for name in dict.fromkeys((*a, *b)) if a.get(name) != b.get(name)]
    what = ", ".join(f"{n} {_field(n, a.get(n))} → {_field(n, b.get(n))}" for n in names)
    same = {name: value for name, value in a.items() if name not in names}
    return f"{edit_text(same)}: {what}"


def _value(about: str, name: str, a: Any, b: Any) -> Iterator[Change]:
    if a != b:
        yield Change(about=about, change=f"{name}: {_shown(a)} → {_shown(b)}")


def _dumped(edit: Edit) -> dict[str, Any]:
    return {"kind": edit.kind, **edit.model_dump(mode="json", exclude_none=True)}


def _place(splice: Splice) -> str:
    if splice.place is not None:
        return f"after layer {splice.place}"
    assert splice.sae is not None
    return f"at the SAE {_shown(splice.sae.model_dump(mode='json'))}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        given = {name: item for name, item in value.items() if item is not None}
        return " ".join(str(_shown(item)) for item in given.values()) or "nothing"
    if isinstance(value, float):
        return f"{value:.12g}"
    return "nothing" if value is None else str(value)
