"""Tokens for the CAS, in which Xet files are stored."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from tests.loopback.errors import HubError
from tests.loopback.hub import Hub
from tests.loopback.routes.common import MODELS, TheAccount, TheHub, TheRepo, TheRevision

router = APIRouter()


@router.get(MODELS + "/xet-read-token/{revision}")
async def read_token(
    hub: TheHub, account: TheAccount, repo: TheRepo, revision: TheRevision
) -> Response:
    hub.with_content(repo, account).resolve(revision)
    return _token(hub)


@router.get(MODELS + "/xet-write-token/{revision}")
async def write_token(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo, revision: TheRevision
) -> Response:
    # Whoever may open a pull request may send its files, before it has a revision.
    if request.query_params.get("create_pr") == "1" or revision.startswith("refs/pr/"):
        hub.readable(repo, account)
        hub.signed_in(account)
    else:
        hub.writable(repo, account).resolve(revision)
    return _token(hub)


def _token(hub: Hub) -> Response:
    if hub.storage.xet is None:
        raise HubError(404, "Xet is not enabled for this repository")
    token, expiry = hub.accounts.issue_for_cas()
    return JSONResponse(
        {"accessToken": token, "exp": expiry, "casUrl": hub.endpoint},
        headers={
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(expiry),
            "X-Xet-Cas-Url": hub.endpoint,
        },
    )
