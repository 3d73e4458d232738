"""Downloads: files at a revision, and LFS objects from the storage on the other hostname."""

from __future__ import annotations

import re
from urllib.parse import unquote

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from tests.loopback.errors import HubError, entry_not_found
from tests.loopback.hub import Hub
from tests.loopback.routes.common import TheAccount, TheHub, TheRepo, TheRevision

router = APIRouter()


@router.api_route("/{namespace}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
async def resolve(
    request: Request,
    hub: TheHub,
    account: TheAccount,
    repo: TheRepo,
    revision: TheRevision,
    path: str,
) -> Response:
    repository = hub.with_content(repo, account)
    commit = repository.resolve(revision)
    headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    entry = commit.files.get(unquote(path))
    if entry is None:
        missing = entry_not_found()
        missing.headers |= headers
        raise missing
    if entry.sha256 is None:
        headers["ETag"] = f'"{entry.blob}"'
        content = repository.blobs[entry.blob]
        start, stop, status = _range(request, len(content), headers)
        headers["Content-Length"] = str(stop - start)
        return Response(content[start:stop], status, headers, "text/plain; charset=utf-8")
    key = hub.storage.offer(entry.sha256)
    headers |= {
        "Location": f"{hub.storage_url}/_storage/objects/{key}",
        "X-Linked-Etag": f'"{entry.sha256}"',
        "X-Linked-Size": str(entry.size),
        "ETag": f'"{entry.sha256}"',
    }
    if xet_hash := hub.storage.xet_hash(entry.sha256):
        token = f"{hub.endpoint}/api/models/{repo}/xet-read-token/{commit.oid}"
        reconstruction = f"{hub.endpoint}/v1/reconstructions/{xet_hash}"
        headers["X-Xet-Hash"] = xet_hash
        headers["Link"] = (
            f'<{token}>; rel="xet-auth", <{reconstruction}>; rel="xet-reconstruction-info"'
        )
    return Response(status_code=302, headers=headers)


@router.api_route("/_storage/objects/{key}", methods=["GET", "HEAD"])
async def stored_object(request: Request, hub: TheHub, key: str) -> Response:
    """Give an object to whoever has the key, as a signed URL does."""
    return _send(request, hub, hub.storage.offered(key))


def _send(request: Request, hub: Hub, sha256: str) -> Response:
    size = hub.storage.size(sha256)
    if size is None:
        raise HubError(404, "The object is gone")
    headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
    start, stop, status = _range(request, size, headers)
    headers["Content-Length"] = str(stop - start)
    if request.method == "GET":
        hub.counters.sent_bytes += stop - start
    pieces = hub.storage.read(sha256, start, stop) if request.method == "GET" else iter(())
    return StreamingResponse(pieces, status, headers, "application/octet-stream")


def _range(request: Request, size: int, headers: dict[str, str]) -> tuple[int, int, int]:
    """The start and end of the asked range and the status; adds Content-Range to the headers."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if match is None or match[0] == "bytes=-":
        return 0, size, 200
    if match[1]:
        start = int(match[1])
        stop = min(int(match[2]) + 1, size) if match[2] else size
    else:
        start, stop = max(size - int(match[2]), 0), size
    if start >= stop:
        raise HubError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return start, stop, 206
