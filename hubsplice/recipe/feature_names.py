"""Features that a recipe names as Neuronpedia does, which names their SAE as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubsplice.errors import HubspliceError, RecipeError
from hubsplice.features.neuronpedia import NeuronpediaName, parse_name
from hubsplice.features.sae_registry import registry_entry
from hubsplice.recipe.problems import field_path


def with_indices(raw: Any) -> Any:
    """A recipe as plain data, with the index in the place of every name of a feature.

    A splice without an SAE gets that of its features. What is not a recipe is left to validation.

    Raises:
        RecipeError: one line per name that is none, or that is of another SAE than the splice's.
    """
    if not isinstance(raw, Mapping) or not isinstance(raw.get("splices"), list):
        return raw
    problems: list[str] = []
    splices = [
        _splice(splice, f"splices[{i}]", problems) if isinstance(splice, Mapping) else splice
        for i, splice in enumerate(raw["splices"])
    ]
    if problems:
        raise RecipeError("\n".join(problems))
    return {**raw, "splices": splices}


def _splice(splice: Mapping[str, Any], field: str, problems: list[str]) -> Any:
    named: dict[str, NeuronpediaName] = {}
    edits = _with_indices(splice.get("edits"), (field, "edits"), named, problems)
    if not named:
        return splice
    first, name = next(iter(named.items()))
    for other, found in named.items():
        if found.sae != name.sae:
            problems.append(
                f"{other}: is a feature of {found.sae}, and {first} is one of {name.sae}; "
                "features of two SAEs need two splices, or a condition its own `sae`"
            )
    if splice.get("sae") is None:
        return {**splice, "sae": {"neuronpedia": name.sae}, "edits": edits}
    doubt = _other_sae(splice["sae"], name)
    if doubt is not None:
        problems.append(f"{first}: is a feature of {name.sae}, and {field}.sae {doubt}")
    return {**splice, "edits": edits}


def _with_indices(
    value: Any,
    at: tuple[int | str, ...],
    named: dict[str, NeuronpediaName],
    problems: list[str],
) -> Any:
    if isinstance(value, list):
        return [_with_indices(v, (*at, i), named, problems) for i, v in enumerate(value)]
    if not isinstance(value, Mapping):
        # Any other text is no index either, and validation says so.
        if at[-1] == "feature" and isinstance(value, str) and "/" in value:
            return _index(value, field_path(at), named, problems)
        return value
    if value.get("sae") is not None:
        return _of_own_sae(value, at, problems)
    return {key: _with_indices(v, (*at, key), named, problems) for key, v in value.items()}


def _of_own_sae(value: Mapping[str, Any], at: tuple[int | str, ...], problems: list[str]) -> Any:
    """A condition that names the SAE of its feature."""
    own: dict[str, NeuronpediaName] = {}
    found = {key: _with_indices(v, (*at, key), own, problems) for key, v in value.items()}
    for field, name in own.items():
        doubt = _other_sae(value["sae"], name)
        if doubt is not None:
            problems.append(
                f"{field}: is a feature of {name.sae}, and {field_path((*at, 'sae'))} {doubt}"
            )
    return found


def _index(text: str, field: str, named: dict[str, NeuronpediaName], problems: list[str]) -> Any:
    try:
        name = parse_name(text)
    except ValueError as error:
        problems.append(f"{field}: {error}")
        return text
    if name.feature is None:
        problems.append(f"{field}: found {text!r}, an SAE; expected a feature, {name.sae}/INDEX")
        return text
    named[field] = name
    return name.feature


def _other_sae(sae: Any, name: NeuronpediaName) -> str | None:
    """What is wrong with an SAE beside the name of a feature; None for nothing."""
    if not isinstance(sae, Mapping):
        return None
    try:
        if isinstance(sae.get("neuronpedia"), str):
            own = parse_name(sae["neuronpedia"]).sae
        elif isinstance(sae.get("release"), str) and isinstance(sae.get("id"), str):
            own = registry_entry(sae["release"], sae["id"]).neuronpedia or "not on Neuronpedia"
        else:
            return f"may be any other; give the number, {name.feature}, or leave `sae` out"
    except (HubspliceError, ValueError):
        # The SAE's own field is told what is wrong with it.
        return None
    return None if own == name.sae else f"is {own}"
