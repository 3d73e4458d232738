"""Why a Hub could not be asked, in words that name the cause, and whether asking again may help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from traceback import walk_tb
from urllib.parse import urlsplit

from hubsplice.errors import first_line, from_transport

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504, 507})
"""Answers that may be others in a moment."""

NOT_OFFERED = frozenset({404, 405, 501})
"""Answers that say that a server has no such thing."""

_ENDLESS = "TooManyRedirects"
_MALFORMED = ("UnsupportedProtocol", "InvalidURL", "LocalProtocolError")
_NO_ADDRESS = re.compile(
    r"name or service not known|nodename nor servname|getaddrinfo failed|name resolution"
    r"|no address associated",
    re.IGNORECASE,
)


def endpoint_problem(endpoint: str) -> str | None:
    """Why something is no address of a Hub, or None."""
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        # Out of range, it raises.
        parts.port  # noqa: B018
    except ValueError:
        is_address = False
    if is_address:
        return None
    return (
        f"HF_ENDPOINT is {endpoint!r}, which is no web address; expected one such as "
        "https://huggingface.co"
    )


def is_permanent(error: BaseException) -> bool:
    """Whether a failure, which may be of the network, will be the same in a moment."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled) or is_nonsense(error):
        return True
    return from_transport(error) and type(error).__name__ in (*_MALFORMED, _ENDLESS)


def is_failed_fetch(error: BaseException) -> bool:
    """Whether something could not be fetched: over the network, the Hub's answer, or the disk."""
    return isinstance(error, OSError) or from_transport(error) or is_nonsense(error)


def is_nonsense(error: BaseException) -> bool:
    """Whether the Hub's client failed over an answer that it could make nothing of, or its token.

    It has no error of its own for either, and trips over what it takes for granted.
    """
    if not isinstance(
        error, ValueError | LookupError | TypeError | AttributeError | AssertionError
    ):
        return False
    # The last frame of ours called the client, which failed behind it.
    below = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    ours = max((i for i, name in enumerate(below) if _is_of(name, "hubsplice")), default=-1)
    return any(_is_of(name, "huggingface_hub") for name in below[ours + 1 :])


def status_of(error: BaseException) -> int | None:
    """The status that a server answered with; None where there was no answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def cause_of(error: BaseException) -> str:
    """Why a call to the Hub failed, in one line."""
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, UnicodeEncodeError):
            return (
                "the token for the Hub holds a character that no token has; set HF_TOKEN anew, or "
                "log in again with `hf auth login`"
            )
        if is_nonsense(cause):
            return f"{endpoint} answered what no Hub answers ({first_line(cause)}); is it a Hub?"
        if from_transport(cause) and type(cause).__name__ == _ENDLESS:
            return f"{endpoint} redirects without an end; is it a Hub?"
        if type(cause).__name__ in _MALFORMED:
            return endpoint_problem(endpoint) or first_line(cause)
        status = status_of(cause)
        if status is not None and status not in TRANSIENT:
            doubt = ": is it a Hub?" if status in {*NOT_OFFERED, HTTPStatus.IM_A_TEAPOT} else ""
            return f"{_answer(endpoint, status)}; it will answer the same again{doubt}"
        if status is not None:
            return f"{_answer(endpoint, status)}; try again later"
        if from_transport(cause) and _NO_ADDRESS.search(str(cause)):
            host = urlsplit(endpoint).hostname
            return f"{host} has no address here: there is no network, or HF_ENDPOINT is wrong"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and it is not in the local cache"
    return first_line(chain[0])


def _is_of(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _answer(endpoint: str, status: int) -> str:
    try:
        phrase = f" ({HTTPStatus(status).phrase})"
    except ValueError:
        phrase = ""
    return f"{endpoint} answered {status}{phrase}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
