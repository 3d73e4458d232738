"""Which repository the files of a shard were sent for: the token that it came with tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tests.loopback.hub import Hub

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class ShardLedger:
    """An ASGI application that notes the files of every shard which the CAS has taken."""

    def __init__(self, app: App, hub: Hub) -> None:
        self.app = app
        self.hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", "/v1/shards"):
            await self.app(scope, receive, send)
            return
        body = bytearray()

        async def keep() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        async def note(message: Message) -> None:
            # Before the answer leaves, since the client's next request may be the commit.
            if message["type"] == "http.response.start" and message["status"] == 200:
                self._note(dict(scope["headers"])[b"authorization"].decode(), bytes(body))
            await send(message)

        await self.app(scope, keep, note)

    def _note(self, authorization: str, shard: bytes) -> None:
        from tests.loopback.xet.shard import parse_shard

        name = self.hub.accounts.repo_of_cas_token(authorization)
        if name in self.hub.buckets:
            return  # Its files are named by their Xet hashes, which the CAS knows itself.
        repository = self.hub.any_repository(name)
        repository.objects.update(file.sha256 for file in parse_shard(shard).files if file.sha256)
