"""What Neuronpedia calls an SAE or a feature: `MODEL/SAE`, `MODEL/SAE/INDEX`, or an address."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from hubsplice.errors import quoted

SITE = "https://www.neuronpedia.org"
_HOSTS = ("neuronpedia.org", "www.neuronpedia.org")
# The address of a feature in Neuronpedia's API, or of its page for embedding.
_BEFORE = ("api", "feature", "embed")


@dataclass(frozen=True)
class NeuronpediaName:
    """An SAE on Neuronpedia, or one of its features.

    Attributes:
        sae: `MODEL/SAE`, such as `gemma-2-2b/20-gemmascope-res-16k`.
        feature: the feature's index, or None where the whole SAE is meant.
    """

    sae: str
    feature: int | None = None


def parse_name(text: str) -> NeuronpediaName:
    """Read a name or an address.

    Raises:
        ValueError: it is neither; what was found and what was expected.
    """
    parts = [part for part in _path(text).split("/") if part]
    while parts and parts[0] in _BEFORE:
        parts = parts[1:]
    digits = len(parts) == 3 and parts[2].isascii() and parts[2].isdigit()
    # More digits than this are no index, and Python refuses to read thousands of them.
    if not (len(parts) == 2 or (digits and len(parts[2]) <= 9)):
        raise ValueError(
            f"found {quoted(text)}, expected Neuronpedia's MODEL/SAE, MODEL/SAE/INDEX, or the "
            f"address of such a page, as {SITE}/gemma-2-2b/20-gemmascope-res-16k/1234"
        )
    return NeuronpediaName("/".join(parts[:2]), int(parts[2]) if digits else None)


def _path(text: str) -> str:
    """The path of an address, and a name as it is."""
    if "://" not in text and text.partition("/")[0] not in _HOSTS:
        return text
    try:
        address = urlsplit(text if "://" in text else f"https://{text}")
    except ValueError:
        address = urlsplit("")
    if address.hostname not in _HOSTS:
        raise ValueError(f"found {quoted(text)}, expected an address of {SITE}")
    return address.path


def page(sae: str, feature: int | None = None) -> str:
    """The address of an SAE's page, or of a feature's."""
    return f"{SITE}/{sae}" if feature is None else f"{SITE}/{sae}/{feature}"
