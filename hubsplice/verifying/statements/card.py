"""A checkpoint's card against the one that its manifest and report give.

Its author may have written more, or otherwise: that is no fault, and it is listed as his words.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hubsplice import __version__
from hubsplice.card.stale import headings, stale_parts
from hubsplice.checkpoint.companions import CARD, CARD_DATA
from hubsplice.errors import HubspliceError, RecipeError
from hubsplice.files.strict_json import parse_object
from hubsplice.recipe.yaml_text import load_yaml
from hubsplice.verifying.result import Check
from hubsplice.verifying.statements.ledger import AuthorClaim, as_json

CARD_CHECK = "card"

_LARGEST, _MOST_LINES = 1 << 20, 20_000
_MODEL_ID = re.compile(r'^model_id = (".*")$', re.MULTILINE)
_WRITTEN = "written by the author: the manifest and the report do not give it"
_OTHER_VERSION = (
    "not as this version of hubsplice writes it; the author or another version wrote it"
)


Render = Callable[[str | None, str | None], str]
"""Writes the card for a model id and a licence, None for those of the folder and the base."""


def compare_card(
    folder: Path, repo_id: str | None, version: str, render: Render
) -> tuple[Check, tuple[AuthorClaim, ...]]:
    """Compare a checkpoint's card with the one that its manifest, report and recipe give.

    Args:
        folder: the checkpoint.
        repo_id: the repository that it is; None for a folder.
        version: the version of hubsplice that the manifest names.
        render: writes it again.

    Returns:
        A check, which fails where there is no card, or where its figures are not those of the
        files; and what the author wrote.
    """
    try:
        found = _read(folder / CARD)
    except FileNotFoundError:
        return Check.of(CARD_CHECK, [f"{CARD}: missing"], ""), ()
    except (OSError, ValueError) as error:
        return Check.of(CARD_CHECK, [f"{CARD}: cannot be read: {error}"], ""), ()
    metadata, body = _parted(found)
    loads = _MODEL_ID.search(body)
    model_id = None if loads is None else _unquoted(loads[1])
    why = _WRITTEN if version == __version__ else _OTHER_VERSION
    # A publisher may have declared another licence than the base's.
    declared = metadata.get("license")
    licences = [None, declared] if isinstance(declared, str) else [None]
    try:
        given = [render(model_id, licence) for licence in licences]
    except HubspliceError as error:
        return Check.impossible(CARD_CHECK, str(error)), ()
    claims, nearest = min(
        (([*_claims(metadata, body, *_parted(text), why)], text) for text in given),
        key=lambda pair: len(pair[0]),
    )
    # Another version may write its figures in another form.
    stale = stale_parts(found, nearest) if version == __version__ else ()
    if stale:
        problems = [f"{CARD}: {part}" for part in stale]
        others = {part.part for part in stale}
        kept = tuple(claim for claim in claims if claim.field.partition(".")[0] not in others)
        return Check.of(CARD_CHECK, problems, ""), kept
    if model_id is not None and repo_id is not None and model_id != repo_id:
        other = f"the examples load another model than {repo_id}"
        claims.append(AuthorClaim(file=CARD, field="Use", stated=as_json(model_id), why=other))
    if not claims:
        return Check.of(CARD_CHECK, [], "it is the one that manifest, report and recipe give"), ()
    parts = ", ".join(dict.fromkeys(claim.field for claim in claims))
    held = f"it has parts that manifest, report and recipe do not give: {parts}"
    return Check.of(CARD_CHECK, [], held), tuple(claims)


def data_claims(folder: Path, version: str, render: Render) -> tuple[AuthorClaim, ...]:
    """What a checkpoint's `card.json` says that its manifest, report and recipe do not give.

    Args:
        folder: the checkpoint.
        version: the version of hubsplice that the manifest names.
        render: writes that file again.
    """
    try:
        found = parse_object(_read(folder / CARD_DATA).encode(), source=CARD_DATA)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, HubspliceError) as error:
        problem = f"it cannot be read: {error}"
        return (AuthorClaim(file=CARD_DATA, field="all of it", stated="null", why=problem),)
    model_id, declared = found.get("model_id"), found.get("other_license")
    try:
        text = render(
            model_id if isinstance(model_id, str) else None,
            declared if isinstance(declared, str) else None,
        )
    except HubspliceError as error:
        problem = f"it can't be written again: {error}"
        return (AuthorClaim(file=CARD_DATA, field="all of it", stated="null", why=problem),)
    expected = json.loads(text)
    why = _WRITTEN if version == __version__ else _OTHER_VERSION
    return tuple(
        AuthorClaim(file=CARD_DATA, field=key, stated=as_json(found.get(key)), why=why)
        for key in sorted({*found, *expected})
        if found.get(key) != expected.get(key)
    )


def _read(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST or data.count(b"\n") > _MOST_LINES:
        raise ValueError(f"larger than {_LARGEST} bytes or {_MOST_LINES} lines")
    return data.decode("utf-8").replace("\r\n", "\n")


def _parted(text: str) -> tuple[dict[str, Any], str]:
    """The metadata of a card and what stands below it; none where there is none that is YAML."""
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if match is None:
        return {}, text
    try:
        metadata = load_yaml(match[1])
    except RecipeError:
        return {}, text
    return metadata if isinstance(metadata, dict) else {}, text[match.end() :]


def _unquoted(text: str) -> str | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, str) else None


def _claims(
    metadata: dict[str, Any], body: str, told: dict[str, Any], written: str, why: str
) -> Iterator[AuthorClaim]:
    yield from _metadata_claims(metadata, told, why)
    yield from _other_parts(body, written, why)


def _metadata_claims(
    found: dict[str, Any], expected: dict[str, Any], why: str
) -> Iterator[AuthorClaim]:
    for key in sorted(map(str, {*found, *expected})):
        if found.get(key) != expected.get(key):
            stated = as_json(_plain(found.get(key)))
            yield AuthorClaim(file=CARD, field=f"metadata.{key}", stated=stated, why=why)


def _plain(value: object) -> object:
    """What JSON can say of a value from YAML."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(_plain, value))
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _other_parts(found: str, expected: str, why: str) -> Iterator[AuthorClaim]:
    """The headings below which lines differ, each with the first line that was written there."""
    written, given = found.splitlines(), expected.splitlines()
    below = headings(written)
    seen: dict[str, str] = {}
    matcher = difflib.SequenceMatcher(None, written, given, autojunk=False)
    for kind, start, end, from_, to in matcher.get_opcodes():
        lines = [line for line in written[start:end] if line.strip()]
        missing = [line for line in given[from_:to] if line.strip()]
        if kind == "equal" or not (lines or missing):
            continue
        part = below[min(start, len(below) - 1)] if below else "no heading"
        seen.setdefault(part, lines[0] if lines else f"left out: {missing[0]}")
    for part, stated in seen.items():
        yield AuthorClaim(file=CARD, field=part, stated=as_json(stated), why=why)
