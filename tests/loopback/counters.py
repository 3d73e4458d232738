"""What the double has received: requests by route, and bytes by the way they came."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Request(BaseModel):
    """A request and the status of its answer; 0 if the connection was closed without one."""

    method: str
    path: str
    route: str
    status: int = 0


class Counters(BaseModel):
    """Counts since the start or the last reset.

    `requests` is keyed by method and route, such as `POST /api/models/{namespace}/{name}/commit/
    {revision}`, and `log` has every request in the order in which it came. The bytes are those of
    request bodies as they arrived, also of requests that failed later.
    """

    requests: dict[str, int] = Field(default_factory=dict)
    log: list[Request] = Field(default_factory=list)
    commit_bytes: int = 0
    """Bodies of commits, in which regular files travel."""
    lfs_bytes: int = 0
    """Bodies of LFS uploads."""
    xorb_bytes: int = 0
    """Bodies of xorbs, in which the chunks of Xet files travel (and not of shards)."""
    sent_bytes: int = 0
    """Bytes of stored objects that were asked for, such as weights."""

    def count(self, method: str, route: str) -> int:
        """How many requests had this method and a route with this text in it."""
        return sum(
            number
            for label, number in self.requests.items()
            if label.split(" ")[0] == method and route in label
        )

    @property
    def content_bytes(self) -> int:
        """All bytes by which files were sent."""
        return self.commit_bytes + self.lfs_bytes + self.xorb_bytes
