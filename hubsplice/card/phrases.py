"""Edits in words that need no formula, and formulas with their numbers put in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from hubsplice.checkpoint.manifest import TermRecord
from hubsplice.features.amounts import ResolvedAmount

_MOST_PHRASES = 3
_STRENGTHS = ("to", "at", "strength")
_EVERYWHERE = " at every token"


def sentence(base: str, terms: Iterable[TermRecord]) -> str:
    """What a model does differently from its base, in one sentence.

    Args:
        base: the base's name.
        terms: the edits; those of one label are one edit.
    """
    phrases = [_phrase(term) for term in {term.label: term for term in terms}.values()]
    if not phrases:
        return f"{base} with an inserted layer that changes nothing."
    more = len(phrases) - _MOST_PHRASES
    shown = phrases[:_MOST_PHRASES]
    if more > 0:
        shown.append(f"{more} more edit{'' if more == 1 else 's'}")
    *most, last = shown
    listed = f"{', '.join(most)} and {last}" if most else last
    return f"{base} with {listed}."


def with_numbers(term: TermRecord) -> str:
    """An edit's formula with its numbers: of f, the feature's activation, or of h."""
    where = _where(term)
    if where is None:
        return _with_numbers(term)
    return f"{_with_numbers(term).removesuffix(_EVERYWHERE)}, only where {where}"


def formula(term: TermRecord) -> tuple[str, str]:
    """An edit's formula, and where it holds if it doesn't hold everywhere."""
    if _where(term) is None:
        return term.formula, ""
    # A clamp's has a form for each of its own two conditions.
    plain = term.formula.partition(";")[0].removeprefix("always: ")
    return plain, " where the condition holds, h elsewhere"


def _with_numbers(term: TermRecord) -> str:
    value = _value(term)
    if value is None:
        return term.formula
    match term.kind, term.edit.get("when"):
        case "ablate", _:
            return "f = 0"
        case "scale", _:
            return f"f × {value}"
        case "clamp", "active":
            return f"f = {value} where f is active"
        case "clamp", _:
            return f"f = {value} at every token"
        case "cap", _:
            return f"f ≤ {value}"
        case "floor", _:
            return f"f ≥ {value}"
        case "add", _:
            return f"f + {value} where f is active"
        case "steer", _:
            return f"h + {value}·d at every token"
        case "gated_steer", _:
            return f"h + {value}·d where the gate is open"
        case "project", _:
            return f"component × {value}"
        case "clamp_projection", _:
            return f"component = {value} at every token"
    return term.formula


def _phrase(term: TermRecord) -> str:
    where = _where(term)
    if where is None:
        return _plain_phrase(term)
    return f"{_plain_phrase(term).removesuffix(_EVERYWHERE)} where {where}"


def _where(term: TermRecord) -> str | None:
    """Where the condition of an edit holds; None for an edit without one."""
    when = term.edit.get("when")
    return condition_words(when) if isinstance(when, dict) else None


def condition_words(when: Mapping[str, JsonValue]) -> str:
    """A condition as a recipe has it, in words: `feature 7 is above 2 and a vector is above 0`."""
    for name, joint in (("all", " and "), ("any", " or ")):
        parts = when.get(name)
        if isinstance(parts, list):
            return joint.join(_is_above(part) for part in parts if isinstance(part, dict))
    return _is_above(when)


def _is_above(gate: Mapping[str, JsonValue]) -> str:
    above, feature, label = (gate.get(name) for name in ("above", "feature", "label"))
    kind = next((name for name in ("vector", "contrast", "probe") if gate.get(name)), "gate")
    what = f"a {kind}" if feature is None else f"feature {feature}"
    if isinstance(label, str) and label.strip():
        what += f" (“{label}”)"
    if isinstance(above, int | float) and (above or feature is None):
        return f"{what} is above {_number(above)}"
    return f"{what} is {'above its own threshold' if feature is None else 'active'}"


def _plain_phrase(term: TermRecord) -> str:
    what, value = _name(term), _value(term)
    when = " wherever it is active" if term.edit.get("when") == "active" else ""
    if value is None:
        return f"{what} edited"
    match term.kind:
        case "ablate":
            return f"{what} taken out"
        case "scale":
            return f"{what} multiplied by {value}"
        case "clamp":
            return f"{what} {'set to' if when else 'held at'} {value}{when}"
        case "cap":
            return f"{what} kept at or below {value}"
        case "floor":
            return f"{what} kept at or above {value}"
        case "add":
            return f"{what} raised by {value} wherever it is active"
        case "steer":
            return f"a push of {value} along {what} at every token"
        case "gated_steer":
            return f"a push of {value} along {what} where a gate is open"
        case "project":
            return f"{what} projected out" if value == "0" else f"{what} rescaled by {value}"
        case "clamp_projection":
            return f"the component along {what} held at {value}"
    return f"{what} edited"


def _name(term: TermRecord) -> str:
    label = term.edit.get("label")
    if isinstance(label, str) and label.strip():
        return f"“{label}”"
    return "a vector" if term.feature is None else f"feature {term.feature}"


def _value(term: TermRecord) -> str | None:
    """The number of an edit, resolved where it was given in other units."""
    amount: ResolvedAmount | None = next(iter(term.amounts), None)
    if amount is not None and amount.value is not None:
        return _number(amount.value)
    if "factor" in term.edit or term.kind == "ablate":
        factor = term.edit.get("factor", 0)
        return _number(factor) if isinstance(factor, int | float) else None
    stated = next((term.edit[name] for name in _STRENGTHS if name in term.edit), None)
    if isinstance(stated, int | float):
        return _number(stated)
    return stated if isinstance(stated, str) else None


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−", 1 if value < 0 else 0)
