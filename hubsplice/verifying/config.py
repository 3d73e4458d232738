"""The spliced config.json against the base's, the manifest, and what the family asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubsplice.checkpoint.companions import CONFIG
from hubsplice.errors import CheckpointError
from hubsplice.files.strict_json import read_object
from hubsplice.verifying.claim import Claim

_ABSENT = object()


def config_problems(folder: Path, claim: Claim) -> list[str]:
    """Where the spliced config.json is not the base's with exactly the declared changes.

    The declared ones must in turn be those that a splice of the base's family makes, so that a
    manifest that was rewritten with the file explains nothing away.

    Args:
        folder: the spliced checkpoint.
        claim: the manifest and base; its layer map must hold.
    """
    try:
        spliced = read_object(folder / CONFIG, source=CONFIG)
    except CheckpointError as error:
        return [str(error)]
    base = claim.architecture.config
    dtype = claim.dtype
    assert dtype is not None
    wanted = claim.linker.config(dtype)
    problems = []
    for key in sorted({*base, *spliced, *wanted, *claim.manifest.config_changes}):
        problem = _declared_problem(key, base, spliced, claim)
        if problem is None and not _same(_at(spliced, key), _at(wanted, key)):
            problem = f"found {_shown(spliced, key)}, expected {_shown(wanted, key)} in a splice"
        if problem is not None:
            problems.append(f"{key}: {problem}")
    return problems + _class_problems(claim)


def _declared_problem(
    key: str, base: Mapping[str, Any], spliced: Mapping[str, Any], claim: Claim
) -> str | None:
    change = claim.manifest.config_changes.get(key)
    if change is None:
        if _same(_at(base, key), _at(spliced, key)):
            return None
        return (
            f"found {_shown(spliced, key)}, expected the base's {_shown(base, key)}: the manifest "
            "declares no change"
        )
    sides = change.model_dump()
    for side, config, whose in (("before", base, "the base's"), ("after", spliced, "the splice's")):
        if not _same(_at(sides, side), _at(config, key)):
            return (
                f"found {_shown(config, key)} for {whose}, expected {_shown(sides, side)} as the "
                "manifest declares"
            )
    if _same(_at(base, key), _at(spliced, key)):
        return "the manifest declares a change, and there is none"
    return None


def _class_problems(claim: Claim) -> list[str]:
    declared, family = claim.manifest.architectures, claim.architecture.family
    pairs = (
        ("before", declared.before, family.class_name),
        ("after", declared.after, family.becomes.name),
    )
    return [
        f"architectures.{side}: found {found!r}, expected {expected!r}"
        for side, found, expected in pairs
        if found != expected
    ]


def _at(content: Mapping[str, Any], key: str) -> object:
    return content.get(key, _ABSENT)


def _same(a: object, b: object) -> bool:
    if a is _ABSENT or b is _ABSENT:
        return a is b
    # As text, since Python holds 1, 1.0 and true for equal, and readers of a config do not.
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def _shown(content: Mapping[str, Any], key: str) -> str:
    value = _at(content, key)
    return "nothing" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
