"""What every request passes before its handler: counting, and the faults that tests ask for."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter
from starlette.routing import Match

from tests.loopback import connections, faults
from tests.loopback.counters import Request
from tests.loopback.hub import Hub
from tests.loopback.ledger import App, Message, Receive, Scope, Send

_HASH = re.compile(r"[0-9a-f]{64}")
_REF_IN_PATH = re.compile(r"/refs/(pr|convert)/([^/]+)")


class Gate:
    """An ASGI application in front of the routes of the double."""

    def __init__(self, app: App, routers: list[APIRouter], hub: Hub) -> None:
        self.app = app
        self.hub = hub
        self._routes = [route for router in routers for route in router.routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["path"] = _routable(scope["raw_path"].decode())
        if scope["path"].startswith("/_admin/"):
            await self.app(scope, receive, send)
            return
        request = Request(
            method=scope["method"], path=unquote(scope["path"]), route=self._route(scope)
        )
        counters = self.hub.counters
        counters.log.append(request)
        label = f"{request.method} {request.route}"
        counters.requests[label] = counters.requests.get(label, 0) + 1
        await self._meet_faults(scope, self._counting(receive, request), _noting(send, request))

    async def _meet_faults(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Apply the faults that are due, in the order in which they were asked for.

        The first that decides on the answer ends it.
        """
        hub = self.hub
        path = unquote(scope["path"])
        for fault in hub.faults:
            if not fault.meets(scope["method"], path):
                continue
            action = fault.action
            if isinstance(action, faults.Delay):
                await asyncio.sleep(action.seconds)
            elif isinstance(action, faults.Slow):
                receive = _throttled(receive, action.bytes_per_second)
            elif isinstance(action, faults.ExpireToken):
                hub.accounts.expired.add(action.token)
            elif isinstance(action, faults.CommitByOther):
                hub.commit_file(
                    action.repo,
                    action.revision,
                    action.path,
                    action.content.encode(),
                    title=action.title,
                    author="someone-else",
                )
            elif isinstance(action, faults.TagByOther):
                repository = hub.any_repository(action.repo)
                repository.add_tag(action.tag, repository.resolve(action.revision))
            elif isinstance(action, faults.Status):
                headers = {} if action.retry_after is None else {"retry-after": action.retry_after}
                await _drain(receive)
                await _answer(send, action.status, headers)
                return
            elif isinstance(action, faults.FullDisk):
                await _drain(receive)
                await _answer(send, 507, {})
                return
            elif isinstance(action, faults.ApplyThenStatus):
                await self.app(scope, receive, _nowhere)
                await _answer(send, action.status, {})
                return
            elif isinstance(action, faults.KillBefore):
                _kill(scope, action.pid)
                await _hang_up(scope, receive)
                return
            elif isinstance(action, faults.Drop):
                await _hang_up(scope, receive)
                return
            else:
                await self.app(scope, receive, _nowhere)
                if isinstance(action, faults.KillAfter):
                    _kill(scope, action.pid)
                await _hang_up(scope, receive)
                return
        await self.app(scope, receive, send)

    def _route(self, scope: Scope) -> str:
        for route in self._routes:
            if route.matches(scope)[0] is Match.FULL:
                # The routes of the CAS are nested; its paths hold nothing but hashes.
                return getattr(route, "path", None) or _HASH.sub("{hash}", scope["path"])
        return "(no such route)"

    def _counting(self, receive: Receive, request: Request) -> Receive:
        counters = self.hub.counters
        attribute = None
        if "/commit/" in request.route:
            attribute = "commit_bytes"
        elif request.route.startswith("/_storage/"):
            attribute = "lfs_bytes"
        elif "/xorbs/" in request.route:
            attribute = "xorb_bytes"
        if attribute is None or request.method not in ("POST", "PUT"):
            return receive

        async def counted() -> Message:
            message = await receive()
            size = len(message.get("body", b""))
            setattr(counters, attribute, getattr(counters, attribute) + size)
            return message

        return counted


def _routable(raw_path: str) -> str:
    """The path with its escapes undone but for slashes, so that revisions stay one segment."""
    raw_path = _REF_IN_PATH.sub(r"/refs%2F\1%2F\2", raw_path)
    return "/".join(unquote(part).replace("/", "%2F") for part in raw_path.split("/"))


def _noting(send: Send, request: Request) -> Send:
    async def noted(message: Message) -> None:
        if message["type"] == "http.response.start":
            request.status = message["status"]
        await send(message)

    return noted


def _throttled(receive: Receive, bytes_per_second: float) -> Receive:
    async def slow() -> Message:
        message = await receive()
        await asyncio.sleep(len(message.get("body", b"")) / bytes_per_second)
        return message

    return slow


async def _nowhere(message: Message) -> None:
    """Swallow an answer."""


async def _drain(receive: Receive) -> None:
    """Take all of a request's body, so that the client reads the answer and sees no reset."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass


async def _answer(send: Send, status: int, headers: dict[str, Any]) -> None:
    body = json.dumps({"error": f"A fault that a test asked for ({status})"}).encode()
    fields = {"content-type": "application/json", "content-length": len(body), **headers}
    encoded = [(key.encode(), str(value).encode()) for key, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


async def _hang_up(scope: Scope, receive: Receive) -> None:
    connections.close(dict(scope))
    while (await receive())["type"] != "http.disconnect":
        pass


def _kill(scope: Scope, pid: int | None) -> None:
    os.kill(pid or connections.sender(dict(scope)), signal.SIGKILL)
