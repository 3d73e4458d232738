"""The application of the double: all its routes, and how errors are answered."""

from __future__ import annotations

import secrets

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from tests.loopback import admin
from tests.loopback.errors import HubError
from tests.loopback.hub import Hub
from tests.loopback.routes import (
    account,
    buckets,
    commit,
    discussions,
    download,
    jobs,
    lfs,
    refs,
    repos,
    xet,
)


def build_app(hub: Hub) -> FastAPI:
    """All routes over one state. Its paths keep escaped slashes, as the gate leaves them."""
    app = FastAPI(openapi_url=None)
    app.state.hub = hub
    app.add_exception_handler(HubError, _answer_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    for router in routers(hub):
        app.include_router(router)
    return app


def routers(hub: Hub) -> list[APIRouter]:
    """All routes, those that take precedence first."""
    modules = (account, repos, commit, refs, discussions, lfs, xet, buckets, jobs, admin)
    cas = [hub.storage.xet.router] if hub.storage.xet is not None else []
    # Paths of downloads begin with any name, and would take those of others.
    return [*(module.router for module in modules), *cas, download.router]


def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)
    headers = {
        "X-Request-Id": f"Root=1-{secrets.token_hex(8)}",
        "X-Error-Message": error.message.encode("ascii", "replace").decode(),
        **error.headers,
    }
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message}, error.status, headers)


def _answer_nobody(request: Request, error: Exception) -> Response:
    """The end of a request whose sender went away, which is no defect of the double."""
    return Response(status_code=499)
