"""The content-addressed storage (CAS) of the loopback Hub: the Xet protocol, as a protocol double.

It holds what the `hf_xet` client sends, checks every hash, and serves it back. It isn't the Hub:
tokens have no scopes, fetch URLs aren't signed, and nothing is ever collected as garbage.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.loopback.xet.content import ContentStore
from tests.loopback.xet.routes import cas_router

__all__ = ["XetStore"]


class XetStore(ContentStore):
    """A content store with its HTTP routes.

    `root` is a folder that the store has to itself, and may hold the store of an earlier process.
    `authorize` says whether a bearer token may read and write. The paths of `router` begin with
    /v1; the `casUrl` that the Hub hands out is the address under which it is mounted.
    """

    def __init__(self, root: Path, authorize: Callable[[str], bool]) -> None:
        super().__init__(root)
        self.router = cas_router(self, authorize)
