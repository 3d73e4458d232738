"""What two manifests, or two exact edits, say otherwise: field by field."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field
from torch import Tensor

from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.site import Term
from hubsplice.verifying.result import Record

_EPS = 2.0**-23
"""Of float32, in which calibration computes."""

_SHOWN = 60


class FieldDifference(Record):
    """A field that two records hold differently."""

    field: str
    found: str
    expected: str
    units: float | None = Field(
        None, description="How far two numbers are apart, in units of float32; null for others."
    )

    def __str__(self) -> str:
        apart = "" if self.units is None else f" ({self.units:.3g} units of float32)"
        return f"{self.field}: found {self.found}, expected {self.expected}{apart}"


def field_differences(
    found: Any,
    expected: Any,
    field: str,
    *,
    exact: frozenset[str] = frozenset(),
    measured: bool = True,
) -> Iterator[FieldDifference]:
    """Compare two pieces of JSON.

    Args:
        found: the one.
        expected: the other.
        field: what differences call it.
        exact: the names of keys below which a number that is close is another one all the same.
        measured: whether it is said how far two numbers are apart.
    """
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for key in [*found, *(key for key in expected if key not in found)]:
            yield from field_differences(
                found.get(key),
                expected.get(key),
                f"{field}.{key}",
                exact=exact,
                measured=measured and key not in exact,
            )
    elif _are_lists(found, expected) and len(found) == len(expected):
        for i, pair in enumerate(zip(found, expected, strict=True)):
            yield from field_differences(*pair, f"{field}[{i}]", exact=exact, measured=measured)
    elif found != expected or type(found) is not type(expected):
        yield FieldDifference(
            field=field,
            found=_shown(found),
            expected=_shown(expected),
            units=_units(found, expected) if measured else None,
        )


def intervention_differences(
    found: Intervention, expected: Intervention
) -> Iterator[FieldDifference]:
    """Compare two exact edits; vectors by their largest element."""
    yield from field_differences(_as_data(found), _as_data(expected), "edit")
    for here, there in zip(found.sites, expected.sites, strict=False):
        for a, b in zip(here.terms, there.terms, strict=False):
            for name, x, y in _vectors(a, b):
                if x.shape != y.shape:
                    yield FieldDifference(
                        field=f"{a.label}: {name}",
                        found=f"shape {list(x.shape)}",
                        expected=f"shape {list(y.shape)}",
                    )
                elif not x.equal(y):
                    apart = float((x.double() - y.double()).abs().max())
                    largest = max(float(x.abs().max()), float(y.abs().max()))
                    yield FieldDifference(
                        field=f"{a.label}: {name}",
                        found=f"a vector of length {float(x.norm()):.6g}",
                        expected=f"another one, of length {float(y.norm()):.6g}",
                        units=apart / (_EPS * largest),
                    )


def _as_data(intervention: Intervention) -> dict[str, Any]:
    return {
        f"after layer {site.place}": {
            "sink_norm": None if math.isinf(site.sink_norm) else site.sink_norm,
            "terms": [
                {
                    "label": term.label,
                    "normalization": term.normalization.value,
                    "bias": term.bias,
                    "breakpoints": list(term.function.breakpoints),
                    "slopes": list(term.function.slopes),
                    "intercepts": list(term.function.intercepts),
                    "condition": _condition(term),
                }
                for term in site.terms
            ],
        }
        for site in intervention.sites
    }


def _vectors(one: Term, other: Term) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What two terms read and write, by its name."""
    for name in ("encoder", "direction"):
        yield name, getattr(one, name), getattr(other, name)
    gates = [term.condition.gates if term.condition else () for term in (one, other)]
    for number, (a, b) in enumerate(zip(*gates, strict=False), start=1):
        yield f"gate {number}", a.encoder, b.encoder


def _condition(term: Term) -> dict[str, Any] | None:
    if term.condition is None:
        return None
    return {
        "needed": term.condition.needed,
        "biases": [gate.bias for gate in term.condition.gates],
        "thresholds": [gate.threshold for gate in term.condition.gates],
    }


def _are_lists(found: Any, expected: Any) -> bool:
    return isinstance(found, list | tuple) and isinstance(expected, list | tuple)


def _units(found: Any, expected: Any) -> float | None:
    if not (isinstance(found, float) and isinstance(expected, float)):
        return None
    largest = max(abs(found), abs(expected))
    if not math.isfinite(found - expected):
        return None
    return abs(found - expected) / (_EPS * largest) if largest else 0.0


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
