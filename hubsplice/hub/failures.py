"""What a failed call to the Hub means: worth another try, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from hubsplice.errors import (
    HubError,
    HubspliceError,
    OutputError,
    RecipeError,
    UnreachableError,
    explained_by,
    first_line,
    from_transport,
)
from hubsplice.transport import TRANSIENT, cause_of, is_permanent, status_of

Result = TypeVar("Result")

ATTEMPTS = 5
_LONGEST_WAIT = 8.0


class StorageError(HubError):
    """The storage behind the Hub failed; hf_xet has no error class of its own for it."""


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed in a moment."""
    status = status_of(error)
    if status is not None:
        return status in TRANSIENT
    if is_permanent(error):
        return False
    return isinstance(error, ConnectionError | TimeoutError | StorageError) or from_transport(error)


def wait_before(attempt: int) -> float:
    """Seconds to wait before the next attempt, after so many."""
    return min(2.0 ** (attempt - 1), _LONGEST_WAIT)


def retried(call: Callable[[], Result]) -> Result:
    """Call again after transient failures: for calls that may be repeated without harm."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    retrying = Retrying(
        retry=retry_if_exception(is_transient),
        stop=stop_after_attempt(ATTEMPTS),
        wait=lambda state: wait_before(state.attempt_number),
        reraise=True,
    )
    return retrying(call)


def explained_errors(repo_id: str) -> AbstractContextManager[None]:
    """Turn what the Hub's client raises into errors that say what to do.

    Raises:
        RecipeError: no repository can have that name.
        HubError: for everything else but what only a developer can explain.
    """
    return explained_by(lambda error: explained(error, repo_id))


def explained(error: Exception, repo_id: str) -> HubspliceError | None:
    """The error for the user; None for what only a developer can explain."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.HFValidationError):
        return RecipeError(
            f"repo_id: {repo_id!r} is not a Hub model id; expected `owner/name`, of letters, "
            "digits, -, _ and ., at most 96 of them"
        )
    if isinstance(error, errors.OIDCError | errors.LocalTokenNotFoundError):
        return HubError(f"no token for the Hub: {first_line(error)}")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return UnreachableError("HF_HUB_OFFLINE is set, and publishing needs the Hub")
    status = status_of(error)
    if isinstance(error, PermissionError) or status == 401:
        return HubError(
            f"{repo_id}: the Hub refused the token: it is missing, expired or revoked, or the "
            "repository is not one that it may see; log in with `hf auth login` or set HF_TOKEN, "
            "then run the same command again: what was sent is not sent twice"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"{repo_id}: no such repository, or none that this token may see; check the spelling "
            "and log in with `hf auth login`"
        )
    if status == 403:
        return HubError(
            f"{repo_id}: the token may not do this; it needs write access: {_message(error)}"
        )
    if is_permanent(error) or (status is not None and status not in TRANSIENT):
        return HubError(f"{repo_id}: {_said(error)}{cause_of(error)}")
    if status is None and is_transient(error) and not isinstance(error, StorageError):
        return UnreachableError(f"{repo_id}: {cause_of(error)}; run the same command again")
    if status is not None or is_transient(error):
        return HubError(f"{repo_id}: {_message(error)}; run the same command again")
    if isinstance(error, OSError):
        return OutputError(
            f"{constants.HF_XET_CACHE}: the Hub's client could not work there: "
            f"{first_line(error)}; make room, or set HF_XET_CACHE to a folder that has it"
        )
    return None


def _message(error: Exception) -> str:
    said = getattr(error, "server_message", None) or str(error).strip()
    status = status_of(error)
    line = said.splitlines()[0] if said else type(error).__name__
    return line if status is None or str(status) in line else f"{line} ({status})"


def _said(error: Exception) -> str:
    """What the server says of its answer, if it says anything."""
    said = str(getattr(error, "server_message", None) or "").strip()
    return f"{said.splitlines()[0]}: " if said else ""
