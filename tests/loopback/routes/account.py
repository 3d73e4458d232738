"""Accounts and what needs no repository: whoami, cards' metadata, trusted publishing."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from tests.loopback.card import check_card
from tests.loopback.errors import HubError
from tests.loopback.routes.common import TheAccount, TheHub

router = APIRouter()

REQUEST_TOKEN = "request-token"
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"


@router.get("/api/whoami-v2")
async def whoami(account: TheAccount) -> dict[str, Any]:
    if account is None or account.only_repo is not None:
        raise HubError(401, "Invalid username or password.")
    role = "write" if account.can_write else "read"
    return {
        "type": "user",
        "id": f"{account.name}-id",
        "name": account.name,
        "fullname": account.name,
        "isPro": False,
        "orgs": [{"type": "org", "name": name} for name in account.organizations],
        "auth": {"type": "access_token", "accessToken": {"displayName": "token", "role": role}},
    }


@router.post("/api/validate-yaml")
async def validate_yaml(request: Request) -> Response:
    findings = check_card((await request.json())["content"])
    status = 400 if findings.errors else 200
    if request.headers.get("accept") == "text/plain":
        return PlainTextResponse("\n".join(findings.errors), status)
    return JSONResponse(
        {
            "errors": [{"message": message} for message in findings.errors],
            "warnings": [{"message": message} for message in findings.warnings],
        },
        status,
    )


@router.get("/_github/id-token")
async def github_id_token(request: Request, hub: TheHub, audience: str) -> dict[str, Any]:
    """Stand in for GitHub's endpoint; its query names the repository that the job runs in."""
    if request.headers.get("authorization") != f"Bearer {REQUEST_TOKEN}":
        raise HubError(401, "Bad credentials")
    claims = {
        "aud": audience,
        "iss": "https://token.actions.githubusercontent.com",
        "repository": request.headers.get("x-github-repository", "me/releases"),
        "jti": secrets.token_hex(8),
    }
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."
    hub.id_tokens[token] = claims
    return {"count": len(token), "value": token}


@router.post("/oauth/token")
async def exchange_token(request: Request, hub: TheHub) -> Response:
    """Give a token for one repository in exchange for an id token of a publisher it trusts."""
    body = await request.json()
    if body.get("grant_type") != _EXCHANGE or body.get("subject_token_type") != _ID_TOKEN:
        return _oauth_error("unsupported_grant_type", "Expected the exchange of an id token")
    claims = hub.id_tokens.get(str(body.get("subject_token")))
    if claims is None:
        return _oauth_error("invalid_grant", "Invalid id token")
    if claims["aud"] != hub.endpoint:
        return _oauth_error("invalid_grant", f"The audience must be {hub.endpoint}")
    repository = hub.repositories.get(str(body.get("resource")))
    if repository is None or claims["repository"] not in repository.publishers:
        return _oauth_error("invalid_grant", "No trusted publisher matches the id token")
    return JSONResponse(
        {
            "access_token": hub.accounts.issue_for_publisher(repository.id),
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "bearer",
            "expires_in": 3600,
        }
    )


def _oauth_error(code: str, description: str) -> Response:
    return JSONResponse({"error": code, "error_description": description}, 400)
