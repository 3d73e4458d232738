"""The answers by which the Hub refuses a request."""

from __future__ import annotations


class HubError(Exception):
    """Answered with `status`, the message, and the code that the client tells errors apart by."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}


def repo_not_found(*, authenticated: bool) -> HubError:
    """What a stranger is told of a private repository, and anybody of a missing one."""
    if authenticated:
        return HubError(404, "Repository not found", code="RepoNotFound")
    return HubError(401, "Invalid username or password.", code="RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found(message: str = "Entry not found") -> HubError:
    return HubError(404, message, code="EntryNotFound")
