"""The Hub's own check of a card's metadata, asked for before anything is sent."""

from __future__ import annotations

import json

from huggingface_hub import ModelCard

from hubsplice.errors import HubError
from hubsplice.hub.built import LocalFile
from hubsplice.hub.failures import retried


def validate_card(card: LocalFile) -> None:
    """Have the Hub check the card.

    Raises:
        HubError: the Hub refuses it, with the Hub's reasons.
        HfHubHTTPError: the Hub can't say.
    """
    assert isinstance(card.source, bytes)
    content = ModelCard(card.source.decode())
    try:
        retried(content.validate)
    except ValueError as error:
        raise HubError(f"card: the Hub refuses its metadata: {_reasons(str(error))}") from None


def _reasons(answer: str) -> str:
    try:
        found = json.loads(answer)
        return "; ".join(str(problem["message"]) for problem in found["errors"])
    except (ValueError, KeyError, TypeError):
        return answer.strip() or "no reason given"
