"""LFS: where objects are to be sent, and their arrival at the storage, on the other hostname."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from tests.loopback.errors import HubError
from tests.loopback.hub import Hub
from tests.loopback.repository import Repository
from tests.loopback.routes.common import MODELS, TheAccount, TheHub, TheRepo
from tests.loopback.storage import Upload

router = APIRouter()


@router.post("/{namespace}/{name}.git/info/lfs/objects/batch")
async def batch(request: Request, hub: TheHub, account: TheAccount, repo: TheRepo) -> Response:
    body = await request.json()
    # Files of a new pull request are sent without a ref, since its revision isn't known yet.
    revision = body["ref"]["name"] if "ref" in body else None
    repository = hub.open_to(repo, account, revision, new_pull_request=revision is None)
    if body.get("operation") != "upload" or body.get("hash_algo", "sha256") != "sha256":
        raise HubError(400, "Only uploads by sha256 are served")
    offered = body.get("transfers", ["basic"])
    wanted = {"lfs": "basic", "multipart": "multipart", "xet": "xet"}[hub.transfer]
    transfer = wanted if wanted in offered else "basic"
    objects = [_object(hub, repository, given, transfer) for given in body["objects"]]
    return JSONResponse(
        {"transfer": transfer, "objects": objects}, media_type="application/vnd.git-lfs+json"
    )


def _object(
    hub: Hub, repository: Repository, given: dict[str, Any], transfer: str
) -> dict[str, Any]:
    oid, size = given["oid"], given["size"]
    answer: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
    if hub.holds(repository, oid) or transfer == "xet":
        return answer
    multipart = transfer == "multipart" and size > hub.part_size
    upload = Upload(repository.id, oid, size, hub.part_size if multipart else None)
    key = hub.storage.begin(upload)
    verify = {"href": f"{hub.endpoint}/{repository.id}.git/info/lfs/verify"}
    if multipart:
        parts = {
            str(part): f"{hub.storage_url}/_storage/parts/{key}/{part}"
            for part in range(1, upload.part_count + 1)
        }
        header = {"chunk_size": str(hub.part_size), **parts}
        action = {"href": f"{hub.endpoint}/api/complete_multipart/{key}", "header": header}
    else:
        action = {"href": f"{hub.storage_url}/_storage/objects/{key}"}
    return answer | {"actions": {"upload": action, "verify": verify}}


@router.put("/_storage/objects/{key}")
async def put_object(request: Request, hub: TheHub, key: str) -> Response:
    etag = await hub.storage.receive_part(key, 1, request.stream())
    _finish(hub, key)
    return Response(headers={"ETag": f'"{etag}"'})


@router.put("/_storage/parts/{key}/{part}")
async def put_part(request: Request, hub: TheHub, key: str, part: int) -> Response:
    etag = await hub.storage.receive_part(key, part, request.stream())
    return Response(headers={"ETag": f'"{etag}"'})


@router.post("/api/complete_multipart/{key}")
async def complete(request: Request, hub: TheHub, key: str) -> dict[str, bool]:
    body = await request.json()
    upload = hub.storage.upload(key)
    given = {part["partNumber"]: part["etag"].strip('"') for part in body["parts"]}
    if body["oid"] != upload.sha256 or given != upload.etags:
        raise HubError(400, "The parts are not those that were received")
    _finish(hub, key)
    return {"success": True}


def _finish(hub: Hub, key: str) -> None:
    upload = hub.storage.upload(key)
    hub.storage.complete(key)
    hub.any_repository(upload.repo).objects.add(upload.sha256)


@router.post("/{namespace}/{name}.git/info/lfs/verify")
async def verify(request: Request, hub: TheHub, account: TheAccount, repo: TheRepo) -> Response:
    repository = hub.readable(repo, account)
    body = await request.json()
    if not hub.holds(repository, body["oid"]):
        raise HubError(404, "The object was not received")
    if hub.storage.size(body["oid"]) != body["size"]:
        raise HubError(422, "The object has another size")
    return Response()


@router.post(MODELS + "/lfs-files/duplicate")
async def duplicate(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo
) -> dict[str, Any]:
    """Copy Xet files of this repository to another one; failures are told file by file."""
    source = hub.with_content(repo, account)
    body = await request.json()
    if body["target"]["type"] != "model":
        raise HubError(400, "This double holds models only")
    target = hub.writable(body["target"]["name"], account)
    failed = []
    for file in body["files"]:
        sha256 = file["sha256"]
        if sha256 not in source.objects:
            failed.append({"sha256": sha256, "error": "File not found in the source repository"})
        elif hub.storage.xet_hash(sha256) != file["xetHash"]:
            failed.append({"sha256": sha256, "error": "File is not stored on Xet"})
        else:
            target.objects.add(sha256)
    return {"failed": failed}
