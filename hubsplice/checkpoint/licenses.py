"""Licences as the Hub takes them in a card: one of its ids, or a name of its own form.

What a base's card says is kept in the manifest as it stands there. The Hub refuses some of it when
it is said again: it has come to hold older cards to less.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HUB_LICENSES = frozenset(Path(__file__).with_name("licenses.txt").read_text("utf-8").split())
"""The ids that the Hub named when it refused another one."""

OTHER = "other"


@dataclass(frozen=True)
class HubLicense:
    """What a card says of a licence.

    Attributes:
        ids: one id, or several for a model that is given under each of them; none where nothing
            is known.
        name: what a licence without an id is called; None for others.
    """

    ids: tuple[str, ...] = ()
    name: str | None = None

    @staticmethod
    def of(license_id: str | None, name: str | None) -> HubLicense:
        """What the Hub takes for the licence of a base.

        An id that the Hub has not is a name, and a name is written in the Hub's letters.

        Args:
            license_id: as the base's card says.
            name: what the card calls a licence that is `other`; for several ids, those.
        """
        if license_id is None:
            return HubLicense()
        plain = license_id.lower()
        if plain != OTHER:
            known = plain in HUB_LICENSES
            return HubLicense((plain,)) if known else HubLicense((OTHER,), _written(license_id))
        several = tuple((name or "").lower().split(", "))
        if len(several) > 1 and HUB_LICENSES.issuperset(several):
            return HubLicense(several)
        return HubLicense((OTHER,), _written(name or ""))


def _written(name: str) -> str:
    """A name in the letters that the Hub allows."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or "base-model-license"
