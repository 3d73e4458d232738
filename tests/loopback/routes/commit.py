"""Commits: how files are to be sent, and the commit itself, to a branch or as a pull request."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from fastapi import APIRouter, Request
from pathspec import GitIgnoreSpec

from tests.loopback import attributes
from tests.loopback.card import check_card
from tests.loopback.errors import HubError
from tests.loopback.hub import Hub
from tests.loopback.repository import Commit, Entry, Repository, apply_operations
from tests.loopback.routes.common import MODELS, TheAccount, TheHub, TheRepo, TheRevision

router = APIRouter()

MOST_FILES = 256
MOST_LFS_FILES = 25_000
MOST_REGULAR_BYTES = 1_000_000_000


@router.post(MODELS + "/preupload/{revision}")
async def preupload(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo, revision: TheRevision
) -> dict[str, Any]:
    as_pull_request = request.query_params.get("create_pr") == "1"
    repository = hub.open_to(repo, account, revision, new_pull_request=as_pull_request)
    commit = repository.resolve(revision)
    body = await request.json()
    if len(body["files"]) > MOST_FILES:
        raise HubError(400, f'"files" must contain at most {MOST_FILES} items')
    ignored = GitIgnoreSpec.from_lines(
        (body.get("gitIgnore") or repository.text(commit, ".gitignore")).splitlines()
    )
    patterns = repository.text(commit, ".gitattributes")
    return {
        "commitOid": commit.oid,
        "files": [_upload_info(file, commit, patterns, ignored) for file in body["files"]],
    }


def _upload_info(
    file: dict[str, Any], commit: Commit, patterns: str, ignored: GitIgnoreSpec
) -> dict[str, Any]:
    path = file["path"]
    sample = base64.b64decode(file.get("sample", ""))
    info = {
        "path": path,
        "uploadMode": attributes.upload_mode(path, file["size"], sample, patterns),
        "shouldIgnore": ignored.match_file(path),
    }
    if path in commit.files:
        info["oid"] = commit.files[path].etag
    return info


@router.post(MODELS + "/commit/{revision}")
async def commit(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo, revision: TheRevision
) -> dict[str, Any]:
    as_pull_request = request.query_params.get("create_pr") == "1"
    author = hub.signed_in(account)
    repository = hub.open_to(repo, account, revision, new_pull_request=as_pull_request)
    header, operations = _parse(await request.body())
    # From here on nothing is awaited, so that the check of the parent and the commit are one step.
    head = repository.resolve(revision)
    ref = repository.full_ref(revision)
    wanted = header.get("parentCommit")
    if as_pull_request:
        parent = repository.resolve(wanted) if wanted else head
    else:
        if ref is None or ref.startswith("refs/tags/"):
            raise HubError(400, f"Not a branch: {revision}")
        if wanted is not None and not head.oid.startswith(wanted):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        parent = head
    files = apply_operations(
        parent,
        operations,
        regular=lambda value: _regular(repository, value),
        lfs=lambda value: _lfs(hub, repository, value),
    )
    discussion = None
    if as_pull_request:
        discussion = repository.open_discussion(
            header["summary"], author.name, header.get("description", ""), parent, "open"
        )
        ref = discussion.ref
    assert ref is not None
    made = repository.commit(
        ref,
        parent,
        files,
        title=header["summary"],
        message=header.get("description", ""),
        author=author.name,
    )
    answer = {
        "success": True,
        "commitOid": made.oid,
        "commitUrl": f"{hub.endpoint}/{repo}/commit/{made.oid}",
        "hookOutput": "",
    }
    for pull in repository.discussions:
        if pull.ref == ref:
            pull.add_event("commit", author.name, {"subject": made.title, "oid": made.oid})
    if discussion is not None:
        answer["pullRequestUrl"] = f"{hub.endpoint}/{repo}/discussions/{discussion.num}"
    return answer


def _parse(body: bytes) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    try:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        items = [(line["key"], line["value"]) for line in lines]
    except (ValueError, TypeError, KeyError) as error:
        raise HubError(400, f"Malformed NDJSON: {error!r}") from error
    if not items or items[0][0] != "header" or not items[0][1].get("summary"):
        raise HubError(400, "The first line must be a header with a summary")
    if sum(key == "lfsFile" for key, _ in items) > MOST_LFS_FILES:
        raise HubError(413, f"More than {MOST_LFS_FILES} LFS files in a commit")
    if sum(len(value.get("content", "")) for _, value in items) > MOST_REGULAR_BYTES:
        raise HubError(413, f"More than {MOST_REGULAR_BYTES} bytes of regular files in a commit")
    return items[0][1], items[1:]


def _regular(repository: Repository, value: dict[str, Any]) -> Entry:
    if value.get("encoding") == "base64":
        try:
            content = base64.b64decode(value["content"], validate=True)
        except binascii.Error as error:
            raise HubError(400, f"{value['path']}: not base64") from error
    else:
        content = value["content"].encode()
    if len(content) > attributes.LARGE:
        raise HubError(
            400,
            f"Your push was rejected because it contains files larger than 10 MiB: {value['path']}",
        )
    if value["path"] == "README.md" and (errors := check_card(content.decode()).errors):
        raise HubError(400, f"Invalid metadata in README.md: {'; '.join(errors)}")
    return repository.add_regular(content)


def _lfs(hub: Hub, repository: Repository, value: dict[str, Any]) -> Entry:
    oid = value["oid"]
    if value.get("algo") != "sha256":
        raise HubError(400, "The algo of an LFS file must be sha256")
    size = hub.storage.size(oid)
    if size is None or not hub.holds(repository, oid):
        raise HubError(
            400,
            "Your push was rejected because an LFS pointer pointed to a file that does not exist: "
            f"{value['path']} ({oid})",
        )
    if value.get("size", size) != size:
        raise HubError(400, f"{value['path']}: the object has {size} bytes")
    return repository.add_lfs(oid, size)
