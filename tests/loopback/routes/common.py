"""What the routes share: the state, the account of a request, and pages of a list."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, Request
from fastapi.responses import JSONResponse, Response

from tests.loopback.accounts import Account
from tests.loopback.hub import Hub


def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


def _account(request: Request) -> Account | None:
    return _hub(request).accounts.of(request.headers.get("authorization"))


def _repo(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


def _revision(revision: str) -> str:
    return unquote(revision)


TheHub = Annotated[Hub, Depends(_hub)]
TheAccount = Annotated[Account | None, Depends(_account)]
TheRepo = Annotated[str, Depends(_repo)]
TheRevision = Annotated[str, Depends(_revision)]

MODELS = "/api/models/{namespace}/{name}"


def page(request: Request, hub: Hub, items: list[Any], size: int) -> Response:
    """The page of a list that a request's cursor asks for, with a Link header to the next one."""
    start = int(request.query_params.get("cursor", "0"))
    response = JSONResponse(items[start : start + size])
    if start + size < len(items):
        path = request.scope["raw_path"].decode()
        following = request.url.include_query_params(cursor=start + size).query
        response.headers["Link"] = f'<{hub.endpoint}{path}?{following}>; rel="next"'
    return response
