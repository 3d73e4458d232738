"""Under which terms a base model is given: what its own card and the Hub say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hubsplice.checkpoint.companions import CARD
from hubsplice.checkpoint.licenses import OTHER, HubLicense
from hubsplice.checkpoint.manifest import BaseTerms
from hubsplice.checkpoint.resolve import ResolvedBase
from hubsplice.files.plain import require_plain
from hubsplice.transport import is_failed_fetch


def read_terms(base: ResolvedBase) -> BaseTerms:
    """The licence in the base's card, and whether the Hub gates it.

    What is not said, or can't be read, is None: a damaged card is no reason not to build.
    """
    return card_terms(base.folder).model_copy(update={"gated": _gated(base)})


def license_doubt(folder: Path) -> str | None:
    """That a card of the result will not say of the licence what the base's says, or None."""
    terms = card_terms(folder)
    known = HubLicense.of(terms.license, terms.license_name)
    if known.name is None:
        return None
    said = terms.license if terms.license != OTHER else terms.license_name
    if said is None or said == known.name:
        return None
    return (
        f"licence: the base's card says {said!r}, in a form that the Hub does not take in a card; "
        f"that of the result will say {OTHER}, {known.name!r}; to say another, give --license to "
        "publish"
    )


def card_terms(folder: Path) -> BaseTerms:
    """The licence in the card of the base in a folder; nothing where it says none."""
    metadata = _metadata(folder / CARD)
    name, license_id = _text(metadata.get("license_name")), metadata.get("license")
    if isinstance(license_id, list):
        # The manifest names one; several are a licence of their own, called by all of them.
        several = [text for text in map(_text, license_id) if text is not None]
        license_id = several[0] if len(several) == 1 else OTHER if several else None
        name = name or (", ".join(several) if len(several) > 1 else None)
    return BaseTerms(
        license=_text(license_id),
        license_name=name,
        license_link=_text(metadata.get("license_link")),
    )


def _metadata(card: Path) -> dict[str, Any]:
    from huggingface_hub import metadata_load

    try:
        require_plain(card)
        metadata = metadata_load(card)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _gated(base: ResolvedBase) -> bool | None:
    from huggingface_hub import HfApi

    if base.repo_id is None:
        return None
    try:
        return bool(HfApi().model_info(base.repo_id, revision=base.commit).gated)
    except Exception as error:
        if is_failed_fetch(error):
            return None
        raise
