"""Which fields of a manifest were shown to be true; every other field is its author's claim.

A field that nothing speaks of is a claim, so that a new one can't be forgotten.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from pydantic import Field

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.recipe.problems import field_path
from hubsplice.verifying.result import Check, Record

Path = tuple[str | int, ...]
"""A field of the manifest, such as `("layers", 0, "site")`; in patterns, "*" is any name."""

_ALIKE = 1e-5
"""Numbers are worked out in float32, whose sums differ by processor and threads."""

_LONGEST = 120


class AuthorClaim(Record):
    """Something that the files say, and that was not shown to be true."""

    file: str = Field(description="The file that says it.")
    field: str = Field(description="Where it stands in the file.")
    stated: str = Field(description="What it says, in JSON; long values are cut.")
    why: str = Field(description="Why it was not shown, or what would show it.")


class Comparison:
    """A check of the manifest's fields against what they should be.

    Attributes:
        problems: where they are otherwise.
        shown: the fields that were worked out, each with all that is in it.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._content: dict[str, Any] = manifest.model_dump(mode="json")
        self.problems: list[str] = []
        self.shown: set[Path] = set()

    def at(self, *path: str | int) -> Any:
        """What the manifest says there."""
        return value_at(self._content, path)

    def shows(self, *path: str | int, expected: object, source: str) -> None:
        """Hold a field to what it must be; if it is that, it is shown.

        Args:
            path: the field.
            expected: as JSON has it.
            source: where that is from, as "from the recipe".
        """
        self.agrees(*path, expected=expected, source=source)
        self.shown.add(path)

    def agrees(self, *path: str | int, expected: object, source: str) -> None:
        """Hold a field to another of its author's claims, which shows neither to be true."""
        found = self.at(*path)
        if not alike(found, expected):
            self.problems.append(
                f"{field_path(path)}: found {as_json(found)}, expected {as_json(expected)} {source}"
            )

    def shows_if(self, *path: str | int, expected: object) -> None:
        """Show a field if it is what is expected; if not, it is a claim and no problem."""
        if alike(self.at(*path), expected):
            self.shown.add(path)


def alike(found: object, expected: object) -> bool:
    """Whether two JSON values are the same, numbers up to rounding."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            alike(value, expected[key]) for key, value in found.items()
        )
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(alike, found, expected))
    if isinstance(found, float) and isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=_ALIKE, abs_tol=1e-30)
    # Python holds 1, 1.0 and true for equal, and readers of the file do not.
    return type(found) is type(expected) and found == expected


def claims_of(
    manifest: Manifest, shown: Iterable[Path], patterns: Collection[Path], file: str
) -> tuple[AuthorClaim, ...]:
    """Every field of a manifest that was not shown; one entry where all in a field was not.

    Args:
        manifest: the manifest.
        shown: the fields that were.
        patterns: the same, as patterns.
        file: its name.
    """
    content: dict[str, Any] = manifest.model_dump(mode="json")
    exact, by_length = set(shown), _by_length(patterns)

    def is_shown(path: Path) -> bool:
        return path in exact or any(
            all(want in ("*", name) for want, name in zip(pattern, path, strict=True))
            for pattern in by_length.get(len(path), ())
        )

    def unshown(value: object, path: Path) -> list[Path]:
        if path and is_shown(path):
            return []
        children = list(_children(value))
        if not children:
            # That a list has no more entries is shown with what its entries are.
            return [] if value == [] and any(p[:-1] == (*path, "*") for p in patterns) else [path]
        found = [unshown(item, (*path, name)) for name, item in children]
        if path and all(
            part == [(*path, name)] for part, (name, _) in zip(found, children, strict=True)
        ):
            return [path]
        return [place for part in found for place in part]

    return tuple(
        AuthorClaim(
            file=file,
            field=field_path(path),
            stated=as_json(value_at(content, path)),
            why=why(path),
        )
        for path in unshown(content, ())
    )


_NO_SAE = "the SAE is not among the files"
_READING = "it is somebody's reading of a feature"
_BUILT = "files can't show what built them; `hubsplice reproduce` builds them again"
_CALIBRATED = "files can't show it; `hubsplice reproduce` calibrates again"

_WHY: tuple[tuple[Path, str], ...] = (
    (("base", "terms"), "the base has no card here, or does not say; see where it comes from"),
    (("base",), "the base was opened from another place; its files are those that were compared"),
    (("hubsplice",), _BUILT),
    (("versions",), _BUILT),
    (("seeds",), _BUILT),
    (("calibration",), _CALIBRATED),
    *(
        ((kind, "*", "terms", "*", *part), reason)
        for kind in ("layers", "biases")
        for part, reason in (
            (("source",), _NO_SAE),
            (("source_sha256",), _NO_SAE),
            (("edit", "label"), _READING),
            (("edit", "when"), _READING),
            ((), _CALIBRATED),
        )
    ),
    (
        ("layers", "*", "constants"),
        "the construction chose it; `hubsplice reproduce` does so again",
    ),
)
_OTHERWISE = "nothing was compared with it"


def why(path: Path) -> str:
    """Why a field of the manifest was not shown, by the first pattern that it begins with."""
    for pattern, reason in _WHY:
        if len(pattern) <= len(path) and all(
            want in ("*", name) for want, name in zip(pattern, path, strict=False)
        ):
            return reason
    return _OTHERWISE


def as_json(value: object) -> str:
    """A value as JSON in one line, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def value_at(content: Any, path: Path) -> Any:
    """The value at a path; None where there is none."""
    for part in path:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def _children(value: object) -> Iterator[tuple[str | int, object]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _by_length(patterns: Iterable[Path]) -> dict[int, list[Path]]:
    found: dict[int, list[Path]] = {}
    for pattern in patterns:
        found.setdefault(len(pattern), []).append(pattern)
    return found


def shown_by(checks: Iterable[Check]) -> Iterator[Path]:
    """The fields, as patterns, that the checks of files and tensors show where they pass."""
    for check in checks:
        if check.passed:
            yield from _SHOWN_BY.get(check.name, ())


_SHOWN_BY: dict[str, tuple[Path, ...]] = {
    "base": (("schema_version",), ("base", "files")),
    "checksums": (("files",),),
    "config": (("config_changes",), ("architectures",)),
    "layer map": (
        ("layer_map",),
        *((kind, "*", part) for kind in ("layers", "biases") for part in ("site", "block")),
        ("biases", "*", "tensor"),
    ),
    "added tensors": (("dtype",),),
    "zero tensors": (("zero_tensors",),),
    "slots": (
        ("slots",),
        *(("layers", "*", part) for part in ("construction", "constants", "terms")),
    ),
    "report": (("fidelity",),),
}
"""By the name of the check. The report itself stays a claim."""
