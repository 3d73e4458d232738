"""How tests prepare and inspect the double; nothing of it exists on the Hub."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from tests.loopback import attributes
from tests.loopback.counters import Counters
from tests.loopback.faults import Fault
from tests.loopback.hub import Hub
from tests.loopback.repository import Entry, Repository, timestamp
from tests.loopback.routes.common import TheHub

router = APIRouter(prefix="/_admin")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Seed(_Body):
    """A repository to be made of a local folder."""

    repo: str
    folder: Path
    private: bool
    gated: bool
    granted: list[str]
    on_xet: bool


class OtherCommit(_Body):
    """A regular file that somebody commits."""

    repo: str
    revision: str
    path: str
    content: str
    title: str
    author: str


class OtherTag(_Body):
    """A tag that somebody sets."""

    repo: str
    tag: str
    revision: str


class JobScript(_Body):
    """What jobs run instead of their command; nothing for the command itself."""

    script: str | None


class Publisher(_Body):
    """A GitHub repository whose jobs a repository trusts."""

    repo: str
    github_repository: str


@router.get("/ready")
async def ready() -> dict[str, bool]:
    return {"ready": True}


@router.post("/faults")
async def add_fault(hub: TheHub, fault: Fault) -> None:
    hub.faults.append(fault)


@router.get("/faults")
async def list_faults(hub: TheHub) -> list[Fault]:
    return hub.faults


@router.delete("/faults")
async def clear_faults(hub: TheHub) -> None:
    """Forget all faults; tokens that one let expire are valid again."""
    hub.faults.clear()
    hub.accounts.expired = {"hf_expired"}


@router.get("/counters")
async def counters(hub: TheHub) -> Counters:
    return hub.counters


@router.delete("/counters")
async def reset_counters(hub: TheHub) -> None:
    hub.counters = Counters()


@router.post("/seed")
async def seed(hub: TheHub, body: Seed) -> dict[str, str]:
    repository = hub.create(body.repo, private=body.private, author=body.repo.split("/")[0])
    repository.gated, repository.granted = body.gated, set(body.granted)
    head = repository.resolve("main")
    patterns = repository.text(head, ".gitattributes")
    files: dict[str, Entry] = dict(head.files)
    large: list[tuple[Path, str]] = []
    for path in sorted(p for p in body.folder.rglob("*") if p.is_file()):
        name = path.relative_to(body.folder).as_posix()
        with path.open("rb") as file:
            sample = file.read(512)
        size = path.stat().st_size
        if attributes.upload_mode(name, size, sample, patterns) == "regular":
            files[name] = repository.add_regular(path.read_bytes())
        else:
            sha256 = _sha256(path)
            large.append((path, sha256))
            files[name] = repository.add_lfs(sha256, size)
    if body.on_xet and hub.storage.xet is not None:
        await asyncio.to_thread(_upload_by_xet, hub, body.repo, large)
        hub.counters = Counters()
    else:
        for path, sha256 in large:
            hub.storage.copy_in(path, sha256)
    author = repository.owner
    commit = repository.commit("refs/heads/main", head, files, title="Upload", author=author)
    return {"oid": commit.oid}


def _upload_by_xet(hub: Hub, repo: str, files: list[tuple[Path, str]]) -> None:
    """Store files as Xet clients do, by sending them to this very process."""
    import hf_xet

    token, expiry = hub.accounts.issue_for_cas(repo)
    session = hf_xet.XetSession()
    with session.new_upload_commit(
        endpoint=hub.endpoint, token=token, token_expiry_unix_secs=expiry
    ) as commit:
        for path, sha256 in files:
            commit.start_upload_file(str(path), sha256=sha256)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@router.post("/commit")
async def commit_by_other(hub: TheHub, body: OtherCommit) -> dict[str, str]:
    commit = hub.commit_file(
        body.repo,
        body.revision,
        body.path,
        body.content.encode(),
        title=body.title,
        author=body.author,
    )
    return {"oid": commit.oid}


@router.post("/tag")
async def tag_by_other(hub: TheHub, body: OtherTag) -> None:
    repository = hub.any_repository(body.repo)
    repository.add_tag(body.tag, repository.resolve(body.revision))


@router.post("/job-script")
async def set_job_script(hub: TheHub, body: JobScript) -> None:
    hub.jobs.script = body.script


@router.get("/jobs")
async def jobs(hub: TheHub) -> list[dict[str, Any]]:
    """What was asked for, and what came of it, in the order of the jobs' starts."""
    return [
        {**job.spec, "id": job.id, "stage": job.stage, "message": job.message, "log": job.lines}
        for job in hub.jobs.by_id.values()
    ]


@router.get("/bucket")
async def bucket_files(hub: TheHub, bucket: str) -> dict[str, str]:
    """The content of every file of a bucket as text, by path; bytes that are none are replaced."""
    xet = hub.storage.xet
    assert xet is not None
    return {
        path: b"".join(xet.read(file)).decode(errors="replace")
        for path, file in hub.buckets[bucket].files.items()
    }


@router.post("/publisher")
async def add_publisher(hub: TheHub, body: Publisher) -> None:
    hub.any_repository(body.repo).publishers.add(body.github_repository)


@router.get("/history")
async def history(hub: TheHub, repo: str, revision: str) -> list[dict[str, Any]]:
    return [
        {
            "oid": commit.oid,
            "parent": commit.parent,
            "title": commit.title,
            "message": commit.message,
            "author": commit.author,
            "date": timestamp(commit.date),
        }
        for commit in hub.any_repository(repo).history(revision)
    ]


@router.get("/tags")
async def tags(hub: TheHub, repo: str) -> dict[str, str]:
    return hub.any_repository(repo).tags()


@router.get("/files")
async def files(hub: TheHub, repo: str, revision: str) -> dict[str, str]:
    """The SHA-256 of every file, by path, taken from the stored bytes."""
    repository = hub.any_repository(repo)
    entries = repository.resolve(revision).files
    return {path: _digest(hub, repository, entry) for path, entry in entries.items()}


def _digest(hub: Hub, repository: Repository, entry: Entry) -> str:
    digest = hashlib.sha256()
    if entry.sha256 is None:
        digest.update(repository.blobs[entry.blob])
    else:
        for piece in hub.storage.read(entry.sha256, 0, entry.size):
            digest.update(piece)
    return digest.hexdigest()
