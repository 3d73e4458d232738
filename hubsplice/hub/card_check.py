"""The Hub's own check of a card's metadata, asked for before anything is sent."""

from __future__ import annotations

import json
import re

from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError

from hubsplice.errors import HubError, RecipeError, unknown_name
from hubsplice.hub.built import LocalFile
from hubsplice.hub.failures import retried
from hubsplice.transport import NOT_OFFERED, status_of

_LICENCES = re.compile(r'"license" must be one of \[(.*)\]')


def validate_card(card: LocalFile) -> bool:
    """Have the Hub check the card.

    Returns:
        Whether it did: other servers than the Hub may have no such check.

    Raises:
        RecipeError: the Hub does not know the licence; the message names the nearest that it knows.
        HubError: the Hub refuses it, with the Hub's reasons.
        HfHubHTTPError: the Hub can't say.
    """
    assert isinstance(card.source, bytes)
    content = ModelCard(card.source.decode())
    try:
        retried(content.validate)
    except HfHubHTTPError as error:
        if status_of(error) in NOT_OFFERED:
            return False
        raise
    except ValueError as error:
        reasons = _reasons(str(error))
        licences = _LICENCES.search(reasons)
        if licences is not None:
            known = licences[1].split(", ")
            raise RecipeError(unknown_name("licence", content.data.get("license"), known)) from None
        raise HubError(f"card: the Hub refuses its metadata: {reasons}") from None
    return True


def _reasons(answer: str) -> str:
    try:
        found = json.loads(answer)
        return "; ".join(str(problem["message"]) for problem in found["errors"])
    except (ValueError, KeyError, TypeError):
        return answer.strip() or "no reason given"
