"""What pydantic finds wrong with a recipe, said in the recipe's own words."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hubsplice.errors import FieldError, quoted, unknown_name

Location = tuple[int | str, ...]

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_too_short": "some text",
    "string_type": "text",
    "tuple_type": "a list",
}


def readable_problems(
    error: ValidationError,
    raw: Any,
    model: type[BaseModel],
    edits: Mapping[str, type[BaseModel]],
) -> str:
    """One line per problem: where it is, what was found, and what was expected.

    Args:
        error: what validation raised.
        raw: the data that was validated.
        model: the model it was validated against.
        edits: the edit models by kind; a mapping in `raw` with such a kind is one of them.
    """
    # Each member of a union complains about the same value: one line says all that would do.
    alternatives: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False):
        for start, expected in _lines(problem, raw, model, edits):
            alternatives.setdefault(start, []).append(expected)
    return "\n".join(
        start + ", or ".join(dict.fromkeys(expected)) for start, expected in alternatives.items()
    )


_SAID_FOR = {
    "scale": ("amplify", "boost", "multiply", "strengthen", "suppress", "dampen", "weaken"),
    "ablate": ("zero", "remove", "delete", "inhibit", "knockout", "off"),
    "clamp": ("set", "pin", "fix", "hold"),
}
"""What others call a kind of edit."""


def _unknown_kind(field: str, kind: object, edits: Mapping[str, type[BaseModel]]) -> str:
    for name, words in _SAID_FOR.items():
        if name in edits and str(kind).lower() in words:
            known = ", ".join(sorted(edits))
            return f"{field}: {kind!r} is not known. Did you mean {name!r}? Known: {known}."
    return unknown_name(field, kind, edits)


def _lines(
    problem: ErrorDetails, raw: Any, model: type[BaseModel], edits: Mapping[str, type[BaseModel]]
) -> list[tuple[str, str]]:
    """A problem's line, cut where the alternatives of a union differ; or none."""
    kind, loc, context = problem["type"], problem["loc"], problem.get("ctx", {})
    keys, value = _as_written(loc, raw)
    path = field_path(keys)
    match kind:
        case "extra_forbidden":
            here = _models_at(model, loc[:-1], raw, edits)
            return [(_unknown_field(path, str(loc[-1]), here), "")]
        case "missing":
            return [(f"{field_path((*keys, loc[-1]))}: missing", "")]
        case "missing_kind":
            return [(f"{path}.kind: missing; expected one of {', '.join(edits)}", "")]
        case "unknown_kind":
            return [(_unknown_kind(f"{path}.kind", value["kind"], edits), "")]
        case "value_error":
            wrong = context["error"]
            path = field_path((*keys, *(wrong.field if isinstance(wrong, FieldError) else ())))
            return [(f"{path}: {wrong}" if path else str(wrong), "")]
        case "too_short" if value:
            # The items were not counted because they are wrong, and each has a line of its own.
            return []
        case "too_short":
            expected = f"at least {context['min_length']} of them"
        case "model_type" if (example := _example_at(model, loc, raw, edits)) is not None:
            expected = f"a mapping such as {example}"
        case "string_type" if isinstance(value, bool | int | float):
            expected = "text; put it in quotes"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            expected = "a number " + problem["msg"].removeprefix("Input should be ")
        case _:
            expected = _EXPECTED.get(kind, problem["msg"].removeprefix("Input should be "))
    return [(f"{path or 'the recipe'}: found {quoted(value)}, expected ", expected)]


def _as_written(loc: Location, raw: Any) -> tuple[Location, Any]:
    """The part of `loc` that exists in `raw`, and the value there.

    Pydantic also puts the names of union members into a location; those are nowhere in `raw`.
    """
    keys: list[int | str] = []
    value = raw
    for key in loc:
        indexes_list = isinstance(value, list) and isinstance(key, int) and key < len(value)
        if indexes_list or (isinstance(value, dict) and key in value):
            value = value[key]
            keys.append(key)
    return tuple(keys), value


def field_path(keys: Iterable[int | str]) -> str:
    """How messages call a field: `splices[0].edits[1].kind`."""
    path = ""
    for key in keys:
        if isinstance(key, int):
            path += f"[{key}]"
        else:
            path += f".{key}" if path else key
    return path


def _unknown_field(path: str, name: str, models: Iterable[type[BaseModel]]) -> str:
    models = tuple(models)
    for model in models:
        # What is asked for under this name can't be had, and the model says why.
        reasons: Mapping[str, str] = getattr(model, "no_fields", {})
        if name in reasons:
            return f"{path}: no such field; {reasons[name]}"
    known = sorted(field for model in models for field in model.model_fields)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"{path}: no such field.{hint} Known: {', '.join(known)}."


def _example_at(
    model: type[BaseModel], loc: Location, raw: Any, edits: Mapping[str, type[BaseModel]]
) -> str | None:
    """What a model at `loc` gives as an example of itself, if one does."""
    found = (getattr(m, "example", None) for m in _models_at(model, loc, raw, edits))
    return next((example for example in found if example is not None), None)


def _models_at(
    model: type[BaseModel], loc: Location, raw: Any, edits: Mapping[str, type[BaseModel]]
) -> tuple[type[BaseModel], ...]:
    """The models that are valid at `loc`, found by following the annotations from `model`."""
    here: tuple[type[BaseModel], ...] = (model,)
    for depth, key in enumerate(loc, start=1):
        named = tuple(m for m in here if m.__name__ == key)
        if named:
            here = named
        elif isinstance(key, str):
            annotations = [m.model_fields[key].annotation for m in here if key in m.model_fields]
            here = tuple(m for a in annotations for m in _models_in(a))
        _, value = _as_written(loc[:depth], raw)
        edit_kind = value.get("kind") if isinstance(value, dict) else None
        if isinstance(edit_kind, str) and edit_kind in edits:
            here = (edits[edit_kind],)
    return here


def _models_in(annotation: Any) -> tuple[type[BaseModel], ...]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return (annotation,) if issubclass(annotation, BaseModel) else ()
    return tuple(m for part in typing.get_args(annotation) for m in _models_in(part))
