"""Buckets: creation, what is known of one, and batches of changes."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from tests.loopback.buckets import Bucket
from tests.loopback.errors import HubError
from tests.loopback.repository import timestamp
from tests.loopback.routes.common import TheAccount, TheHub, TheRepo
from tests.loopback.routes.xet import cas_token

router = APIRouter()

BUCKETS = "/api/buckets/{namespace}/{name}"


@router.post(BUCKETS)
async def create(request: Request, hub: TheHub, account: TheAccount, repo: TheRepo) -> Response:
    hub.may_create_in(repo.split("/")[0], account)
    url = f"{hub.endpoint}/buckets/{repo}"
    if repo in hub.buckets:
        message = "You already created this bucket"
        return JSONResponse(
            {"error": message, "url": url}, 409, headers={"X-Error-Message": message}
        )
    body = await request.json()
    hub.buckets[repo] = Bucket(repo, private=body.get("visibility") == "private")
    return JSONResponse({"url": url, "name": repo, "id": f"{repo}-id"})


@router.get(BUCKETS)
async def info(hub: TheHub, account: TheAccount, repo: TheRepo) -> dict[str, Any]:
    bucket = hub.bucket(repo, account)
    xet = hub.storage.xet
    return {
        "_id": f"{bucket.id}-id",
        "id": bucket.id,
        "private": bucket.private,
        "createdAt": timestamp(bucket.created),
        "size": 0 if xet is None else sum(map(xet.size, bucket.files.values())),
        "totalFiles": len(bucket.files),
    }


@router.get(BUCKETS + "/xet-{kind}-token")
async def token(hub: TheHub, account: TheAccount, repo: TheRepo, kind: str) -> Response:
    bucket = hub.bucket(repo, account)
    if kind == "write":
        hub.may_create_in(bucket.owner, account)
    return cas_token(hub, repo)


@router.post(BUCKETS + "/batch")
async def batch(request: Request, hub: TheHub, account: TheAccount, repo: TheRepo) -> Response:
    bucket = hub.bucket(repo, account)
    hub.may_create_in(bucket.owner, account)
    lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
    failed = []
    for line in lines:
        problem = _apply(hub.storage.xet, bucket, line)
        if problem is not None:
            failed.append({"path": line["path"], "error": problem})
    answer = {
        "success": not failed,
        "processed": len(lines),
        "succeeded": len(lines) - len(failed),
        "failed": failed,
    }
    return JSONResponse(answer, 422 if lines and len(failed) == len(lines) else 200)


def _apply(xet: Any, bucket: Bucket, line: dict[str, Any]) -> str | None:
    """Make one change; gives why it can't be made."""
    if line["type"] == "deleteFile":
        return None if bucket.files.pop(line["path"], None) else "File not found"
    if line["type"] != "addFile":
        raise HubError(400, "This double adds and deletes files only")
    try:
        xet.size(line["xetHash"])
    except KeyError:
        return f"Unknown xet hash {line['xetHash']}"
    bucket.files[line["path"]] = line["xetHash"]
    return None
