"""Faults that a test asks for: which requests they meet, and what then happens."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Action(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Status(_Action):
    """Answer with a status, without handling the request."""

    kind: Literal["status"] = "status"
    status: int
    retry_after: int | None = None
    """Seconds, as a Retry-After header."""


class ApplyThenStatus(_Action):
    """Handle the request, and then answer with a status as if it had failed."""

    kind: Literal["apply_then_status"] = "apply_then_status"
    status: int = 504


class Drop(_Action):
    """Close the connection without an answer, without handling the request."""

    kind: Literal["drop"] = "drop"


class ApplyThenDrop(_Action):
    """Handle the request, and then close the connection without an answer."""

    kind: Literal["apply_then_drop"] = "apply_then_drop"


class Delay(_Action):
    """Wait before handling the request."""

    kind: Literal["delay"] = "delay"
    seconds: float


class Slow(_Action):
    """Read the body of the request at no more than a rate."""

    kind: Literal["slow"] = "slow"
    bytes_per_second: float


class KillBefore(_Action):
    """Kill a process by SIGKILL when it sends the request, which is then not handled.

    Without `pid` it is the process that sent the request, found by its end of the connection.
    """

    kind: Literal["kill_before"] = "kill_before"
    pid: int | None = None


class KillAfter(_Action):
    """Handle the request and then kill a process by SIGKILL, which so gets no answer.

    Without `pid` it is the process that sent the request, found by its end of the connection.
    """

    kind: Literal["kill_after"] = "kill_after"
    pid: int | None = None


class FullDisk(_Action):
    """Take the body of the request and then fail to store it: 507, Insufficient Storage."""

    kind: Literal["full_disk"] = "full_disk"


class ExpireToken(_Action):
    """From this request on, it included, a token is expired."""

    kind: Literal["expire_token"] = "expire_token"
    token: str = "hf_writer"


class CommitByOther(_Action):
    """Before the request is handled, someone else commits a regular file."""

    kind: Literal["commit_by_other"] = "commit_by_other"
    repo: str
    revision: str = "main"
    path: str = "notes.md"
    content: str = "A change by somebody else.\n"
    title: str = "Update notes.md"


class TagByOther(_Action):
    """Before the request is handled, someone else tags a revision."""

    kind: Literal["tag_by_other"] = "tag_by_other"
    repo: str
    tag: str
    revision: str = "main"


Action = Annotated[
    Status
    | ApplyThenStatus
    | Drop
    | ApplyThenDrop
    | Delay
    | Slow
    | KillBefore
    | KillAfter
    | FullDisk
    | ExpireToken
    | CommitByOther
    | TagByOther,
    Field(discriminator="kind"),
]


class Fault(BaseModel):
    """An action for requests whose method and path (found with `re.search`) match.

    The first `skip` matching requests pass; the next `times` meet the action (all, if None).
    """

    model_config = ConfigDict(extra="forbid")

    action: Action
    method: str = ".*"
    path: str = ""
    times: int | None = 1
    skip: int = 0
    hits: int = 0
    """How often the action was met."""

    def meets(self, method: str, path: str) -> bool:
        """Whether the action is due for a request; counts it if so."""
        if not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True
