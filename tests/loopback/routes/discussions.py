"""Discussions and pull requests."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tests.loopback.errors import HubError
from tests.loopback.hub import Hub
from tests.loopback.repository import Discussion, Repository, timestamp
from tests.loopback.routes.common import MODELS, TheAccount, TheHub, TheRepo

router = APIRouter()

_PAGE = 10


@router.get(MODELS + "/discussions")
async def list_discussions(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo
) -> dict[str, Any]:
    repository = hub.readable(repo, account)
    query = request.query_params
    chosen = [
        discussion
        for discussion in reversed(repository.discussions)
        if _is_of_type(discussion, query.get("type", "all"))
        and _has_status(discussion, query.get("status", "all"))
        and query.get("author", discussion.author) == discussion.author
    ]
    start = int(query.get("p", "0")) * _PAGE
    return {
        "discussions": [_summary(repository, d) for d in chosen[start : start + _PAGE]],
        "count": len(chosen),
        "start": start,
    }


@router.post(MODELS + "/discussions")
async def create_discussion(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo
) -> dict[str, Any]:
    repository = hub.readable(repo, account)
    author = hub.signed_in(account)
    body = await request.json()
    base = repository.resolve("main") if body.get("pullRequest") else None
    discussion = repository.open_discussion(
        body["title"], author.name, body.get("description", ""), base, "draft" if base else "open"
    )
    return {
        "num": discussion.num,
        "url": f"{hub.endpoint}/{repo}/discussions/{discussion.num}",
        "pullRequest": base is not None,
    }


@router.get(MODELS + "/discussions/{num}")
async def discussion_details(
    hub: TheHub, account: TheAccount, repo: TheRepo, num: int
) -> dict[str, Any]:
    repository = hub.readable(repo, account)
    discussion = repository.discussion(num)
    details = _summary(repository, discussion) | {"events": discussion.events}
    if discussion.base is not None:
        changes = {"base": "refs/heads/main"}
        if discussion.merged:
            changes["mergeCommitId"] = discussion.merged
        is_open = discussion.status in ("open", "draft")
        details |= {
            "changes": changes,
            "filesWithConflicts": repository.conflicts(discussion) if is_open else [],
            "diff": "",
        }
    return details


@router.post(MODELS + "/discussions/{num}/comment")
async def comment(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo, num: int
) -> dict[str, Any]:
    discussion = hub.readable(repo, account).discussion(num)
    author = hub.signed_in(account)
    return {"newMessage": _comment(discussion, author.name, (await request.json())["comment"])}


@router.post(MODELS + "/discussions/{num}/title")
async def retitle(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo, num: int
) -> dict[str, Any]:
    discussion, author = _changeable(hub, account, repo, num)
    title = (await request.json())["title"]
    change = {"from": discussion.title, "to": title}
    discussion.title = title
    return {"newTitle": discussion.add_event("title-change", author, change)}


@router.post(MODELS + "/discussions/{num}/status")
async def change_status(
    request: Request, hub: TheHub, account: TheAccount, repo: TheRepo, num: int
) -> dict[str, Any]:
    discussion, author = _changeable(hub, account, repo, num)
    body = await request.json()
    if body.get("comment"):
        _comment(discussion, author, body["comment"])
    discussion.status = body["status"]
    return {"newStatus": discussion.add_event("status-change", author, {"status": body["status"]})}


@router.post(MODELS + "/discussions/{num}/merge")
async def merge(hub: TheHub, account: TheAccount, repo: TheRepo, num: int) -> Response:
    repository = hub.writable(repo, account)
    discussion = repository.discussion(num)
    if discussion.status not in ("open", "draft"):
        raise HubError(400, f"The pull request is {discussion.status}")
    repository.merge(discussion, hub.signed_in(account).name)
    return Response()


def _changeable(hub: Hub, account: TheAccount, repo: str, num: int) -> tuple[Discussion, str]:
    discussion = hub.readable(repo, account).discussion(num)
    author = hub.signed_in(account).name
    if author != discussion.author:
        hub.writable(repo, account)
    return discussion, author


def _comment(discussion: Discussion, author: str, text: str) -> dict[str, Any]:
    latest = {"raw": text, "html": text, "updatedAt": timestamp()}
    return discussion.add_event(
        "comment", author, {"edited": False, "hidden": False, "latest": latest}
    )


def _is_of_type(discussion: Discussion, kind: str) -> bool:
    if kind == "all":
        return True
    return (kind == "pull_request") == (discussion.base is not None)


def _has_status(discussion: Discussion, status: str) -> bool:
    is_open = discussion.status in ("open", "draft")
    return status == "all" or (status == "open") == is_open


def _summary(repository: Repository, discussion: Discussion) -> dict[str, Any]:
    return {
        "num": discussion.num,
        "title": discussion.title,
        "author": {"name": discussion.author},
        "createdAt": timestamp(discussion.created),
        "status": discussion.status,
        "isPullRequest": discussion.base is not None,
        "repo": {"name": repository.id, "type": "model"},
    }
