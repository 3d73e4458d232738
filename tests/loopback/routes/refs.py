"""What a repository holds at its revisions: trees, paths, commits, branches and tags."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from tests.loopback import git
from tests.loopback.errors import HubError, entry_not_found, revision_not_found
from tests.loopback.hub import Hub
from tests.loopback.repository import Commit, Repository, timestamp
from tests.loopback.routes.common import MODELS, TheAccount, TheHub, TheRepo, TheRevision, page

router = APIRouter()


@router.get(MODELS + "/tree/{revision}")
@router.get(MODELS + "/tree/{revision}/{path:path}")
async def tree(
    request: Request,
    hub: TheHub,
    account: TheAccount,
    repo: TheRepo,
    revision: TheRevision,
    path: str = "",
) -> Response:
    repository = hub.readable(repo, account)
    commit = repository.resolve(revision)
    folder = unquote(path).strip("/")
    recursive = request.query_params.get("recursive", "").lower() in ("1", "true")
    expand = request.query_params.get("expand", "").lower() in ("1", "true")
    prefix = f"{folder}/" if folder else ""
    inside = [p for p in _paths(commit) if p.startswith(prefix) and p != folder]
    if folder and not inside:
        raise entry_not_found(f'"{folder}" does not exist on "{revision}"')
    if not recursive:
        inside = [p for p in inside if "/" not in p.removeprefix(prefix)]
    described = _describe(hub, repository, commit, inside, with_commit=expand)
    return page(request, hub, described, min(50, hub.page_size) if expand else hub.page_size)


@router.post(MODELS + "/paths-info/{revision}")
async def paths_info(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo, revision: TheRevision
) -> Response:
    repository = hub.readable(repo, account)
    form = parse_qs((await request.body()).decode())
    wanted = [path.strip("/") for path in form.get("paths", [])]
    if len(wanted) > 1000:
        raise HubError(413, "too many parameters")
    commit = repository.resolve(revision)
    known = [path for path in _paths(commit) if path in wanted]
    expand = form.get("expand", ["false"])[0].lower() == "true"
    return JSONResponse(_describe(hub, repository, commit, known, with_commit=expand))


def _paths(commit: Commit) -> list[str]:
    """All files and folders of a commit, sorted."""
    paths = set(commit.files)
    for path in commit.files:
        parts = path.split("/")
        paths.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return sorted(paths)


def _describe(
    hub: Hub, repository: Repository, commit: Commit, paths: list[str], *, with_commit: bool
) -> list[dict[str, Any]]:
    folders = git.tree_ids({path: entry.blob for path, entry in commit.files.items()})
    rows: list[dict[str, Any]] = []
    for path in paths:
        entry = commit.files.get(path)
        if entry is None:
            row = {"type": "directory", "oid": folders[path], "size": 0, "path": path}
        else:
            row = {"type": "file", "oid": entry.blob, "size": entry.size, "path": path}
            if entry.sha256 is not None:
                pointer = len(git.lfs_pointer(entry.sha256, entry.size))
                row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": pointer}
                if xet_hash := hub.storage.xet_hash(entry.sha256):
                    row["xetHash"] = xet_hash
        if with_commit:
            last = repository.last_commit_of(commit.oid, path)
            row["lastCommit"] = {
                "id": last.oid,
                "title": last.title,
                "date": timestamp(last.date),
            }
        rows.append(row)
    return rows


@router.get(MODELS + "/commits/{revision}")
async def commits(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo, revision: TheRevision
) -> Response:
    history = hub.readable(repo, account).history(revision)
    rows = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "authors": [{"user": commit.author}],
            "date": timestamp(commit.date),
        }
        for commit in history
    ]
    return page(request, hub, rows, min(50, hub.page_size))


@router.get(MODELS + "/refs")
async def refs(request: Request, hub: TheHub, account: TheAccount, repo: TheRepo) -> dict[str, Any]:
    repository = hub.readable(repo, account)
    answer: dict[str, Any] = {
        "branches": [_ref(repository, f"refs/heads/{name}") for name in repository.branches()],
        "tags": [_ref(repository, f"refs/tags/{name}") for name in repository.tags()],
        "converts": [],
    }
    if request.query_params.get("include_prs") == "1":
        answer["pullRequests"] = [
            _ref(repository, ref) for ref in repository.refs if ref.startswith("refs/pr/")
        ]
    return answer


def _ref(repository: Repository, ref: str) -> dict[str, str]:
    name = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
    return {"name": name, "ref": ref, "targetCommit": repository.refs[ref]}


@router.post(MODELS + "/tag/{revision}")
async def create_tag(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo, revision: TheRevision
) -> Response:
    repository = hub.writable(repo, account)
    body = await request.json()
    if not body.get("tag"):
        raise HubError(400, '"tag" is required')
    repository.add_tag(body["tag"], repository.resolve(revision), body.get("message", ""))
    return Response()


@router.delete(MODELS + "/tag/{revision}")
async def delete_tag(
    hub: TheHub, account: TheAccount, repo: TheRepo, revision: TheRevision
) -> Response:
    repository = hub.writable(repo, account)
    if repository.refs.pop(f"refs/tags/{revision}", None) is None:
        raise revision_not_found(revision)
    return Response()


@router.post(MODELS + "/branch/{revision}")
async def create_branch(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo, revision: TheRevision
) -> Response:
    repository = hub.writable(repo, account)
    ref = f"refs/heads/{revision}"
    if ref in repository.refs:
        raise HubError(409, f'Branch "{revision}" exists already')
    body = await request.json()
    repository.refs[ref] = repository.resolve(body.get("startingPoint", "main")).oid
    return Response()


@router.delete(MODELS + "/branch/{revision}")
async def delete_branch(
    hub: TheHub, account: TheAccount, repo: TheRepo, revision: TheRevision
) -> Response:
    repository = hub.writable(repo, account)
    if revision == "main":
        raise HubError(403, "The main branch can't be deleted")
    if repository.refs.pop(f"refs/heads/{revision}", None) is None:
        raise revision_not_found(revision)
    return Response()
