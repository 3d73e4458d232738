"""Repositories: creation, deletion, and what is known of one at a revision."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from tests.loopback import git
from tests.loopback.card import check_card
from tests.loopback.errors import HubError, repo_not_found
from tests.loopback.hub import Hub
from tests.loopback.repository import Commit, Entry, Repository, timestamp
from tests.loopback.routes.common import MODELS, TheAccount, TheHub, TheRepo, TheRevision

router = APIRouter()


@router.post("/api/repos/create")
async def create(request: Request, hub: TheHub, account: TheAccount) -> Response:
    body = await request.json()
    if body.get("type", "model") != "model":
        raise HubError(400, "This double holds models only")
    namespace = body.get("organization") or (account.name if account else "")
    repo = f"{namespace}/{body['name']}"
    account = hub.may_create_in(namespace, account)
    url = f"{hub.endpoint}/{repo}"
    if repo in hub.repositories:
        message = "You already created this model repo"
        return JSONResponse(
            {"error": message, "url": url}, 409, headers={"X-Error-Message": message}
        )
    private = body.get("visibility") == "private" or body.get("private") is True
    hub.create(repo, private=private, author=account.name)
    return JSONResponse({"url": url, "name": repo, "id": f"{repo}-id"})


@router.delete("/api/repos/delete")
async def delete(request: Request, hub: TheHub, account: TheAccount) -> Response:
    body = await request.json()
    namespace = body.get("organization") or (account.name if account else "")
    repo = f"{namespace}/{body['name']}"
    if repo not in hub.repositories:
        raise repo_not_found(authenticated=account is not None)
    hub.may_create_in(namespace, account)
    del hub.repositories[repo]
    return Response()


@router.get(MODELS + "/auth-check")
async def auth_check(hub: TheHub, account: TheAccount, repo: TheRepo) -> Response:
    hub.with_content(repo, account)
    return Response()


@router.get(MODELS)
async def model_info(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo
) -> dict[str, Any]:
    repository = hub.readable(repo, account)
    return _info(request, hub, repository, repository.resolve("main"))


@router.get(MODELS + "/revision/{revision}")
async def revision_info(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo, revision: TheRevision
) -> dict[str, Any]:
    repository = hub.readable(repo, account)
    return _info(request, hub, repository, repository.resolve(revision))


def _info(request: Request, hub: Hub, repository: Repository, commit: Commit) -> dict[str, Any]:
    card = check_card(repository.text(commit, "README.md")).metadata
    with_blobs = request.query_params.get("blobs", "").lower() in ("1", "true")
    tags = [str(tag) for tag in card.get("tags") or []]
    tags += [f"license:{license_}" for license_ in _listed(card.get("license"))]
    relation = card.get("base_model_relation")
    for base in _listed(card.get("base_model")):
        tags.append(f"base_model:{base}")
        if relation:
            tags.append(f"base_model:{relation}:{base}")
    info: dict[str, Any] = {
        "_id": f"{repository.id}-id",
        "id": repository.id,
        "modelId": repository.id,
        "author": repository.owner,
        "sha": commit.oid,
        "lastModified": timestamp(commit.date),
        "createdAt": timestamp(repository.created),
        "private": repository.private,
        "gated": "auto" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags,
        "siblings": [_sibling(path, e, with_blobs) for path, e in sorted(commit.files.items())],
        "spaces": [],
        "usedStorage": sum(hub.storage.size(oid) or 0 for oid in repository.objects),
    }
    if card:
        info["cardData"] = card
    for key in ("library_name", "pipeline_tag", "model-index"):
        if key in card:
            info[key] = card[key]
    if expand := request.query_params.getlist("expand"):
        return {key: value for key, value in info.items() if key in ("_id", "id", *expand)}
    return info


def _listed(value: Any) -> list[Any]:
    """The values of metadata that may be one or several."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _sibling(path: str, entry: Entry, with_blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if with_blobs:
        sibling |= {"size": entry.size, "blobId": entry.blob}
        if entry.sha256 is not None:
            pointer = len(git.lfs_pointer(entry.sha256, entry.size))
            sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": pointer}
    return sibling
