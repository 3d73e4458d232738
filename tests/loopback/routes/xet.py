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
    return cas_token(hub, repo)


@router.get(MODELS + "/xet-write-token/{revision}")
async def write_token(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo, revision: TheRevision
) -> Response:
    as_pull_request = request.query_params.get("create_pr") == "1"
    repository = hub.open_to(repo, account, revision, new_pull_request=as_pull_request)
    # Without a revision the client asks for one named "None".
    if not as_pull_request:
        repository.resolve(revision)
    return cas_token(hub, repo)


def cas_token(hub: Hub, repo: str) -> Response:
    """What lets the client read and write the content of a repository or a bucket."""
    if hub.storage.xet is None:
        raise HubError(404, "Xet is not enabled for this repository")
    token, expiry = hub.accounts.issue_for_cas(repo)
    return JSONResponse(
        {"accessToken": token, "exp": expiry, "casUrl": hub.endpoint},
        headers={
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(expiry),
            "X-Xet-Cas-Url": hub.endpoint,
        },
    )
