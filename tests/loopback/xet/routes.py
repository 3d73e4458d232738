"""The HTTP routes of the content-addressed storage."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from tests.loopback.xet.content import ContentStore
from tests.loopback.xet.hashes import hash_bytes
from tests.loopback.xet.shard import serialize_deduplication_shard

_DAY = 86400  # seconds


def cas_router(store: ContentStore, authorize: Callable[[str], bool]) -> APIRouter:
    """The routes over a store.

    What the protocol has besides (upload grants, version 2 of shards and reconstructions,
    telemetry) answers 404, after which the client goes on with version 1.
    """

    def check_token(authorization: Annotated[str, Header()] = "") -> None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not authorize(token):
            raise HTTPException(401, "the token isn't valid")

    router = APIRouter(tags=["xet"])
    with_token = APIRouter(dependencies=[Depends(check_token)])

    @with_token.post("/v1/xorbs/{prefix}/{text}")
    async def add_xorb(prefix: str, text: str, request: Request) -> dict[str, bool]:
        body = await _receive(store, request)
        return {"was_inserted": await _checked(store.add_xorb, text, body)}

    @with_token.post("/v1/shards")
    async def add_shard(request: Request) -> dict[str, int]:
        body = await _receive(store, request)
        return {"result": int(await _checked(store.add_shard, body))}

    @with_token.get("/v1/chunks/{prefix}/{text}")
    def query_chunk(prefix: str, text: str) -> Response:
        try:
            xorb = store.xorb_of_chunk(_hash(text))
        except KeyError:
            raise HTTPException(404, f"there is no chunk {text}") from None
        now = int(time.time())
        shard = serialize_deduplication_shard([xorb], created=now, expires=now + _DAY)
        return Response(shard, media_type="application/octet-stream")

    @with_token.get("/v1/reconstructions/{text}")
    def reconstruct(
        text: str, request: Request, range_: Annotated[str, Header(alias="Range")] = ""
    ) -> dict[str, Any]:
        try:
            size = store.size(_hash(text))
        except KeyError:
            raise HTTPException(404, f"there is no file {text}") from None
        start, end = _byte_range(range_, size)
        found = store.reconstruct(text, start, end)
        fetch_info: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for fetch in found.fetches:
            fetch_info[fetch.xorb].append(
                {
                    "range": {"start": fetch.first, "end": fetch.last},
                    "url": str(request.url_for("fetch_xorb", text=fetch.xorb)),
                    "url_range": {"start": fetch.start, "end": fetch.end - 1},
                }
            )
        terms = [
            {
                "hash": piece.xorb,
                "unpacked_length": piece.size,
                "range": {"start": piece.first, "end": piece.last},
            }
            for piece in found.pieces
        ]
        return {
            "offset_into_first_range": found.skipped,
            "terms": terms,
            "fetch_info": fetch_info,
        }

    # The client sends no token here, for the Hub's own fetch URLs are signed.
    @router.get("/v1/xorb-bodies/{text}")
    def fetch_xorb(text: str) -> FileResponse:
        try:
            return FileResponse(store.xorb_path(_hash(text)))
        except KeyError:
            raise HTTPException(404, f"there is no xorb {text}") from None

    router.include_router(with_token)
    return router


async def _receive(store: ContentStore, request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        store.count_received(len(part))
        body += part
    return bytes(body)


async def _checked(add: Callable[..., bool], *arguments: object) -> bool:
    try:
        return await run_in_threadpool(add, *arguments)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error


def _hash(text: str) -> str:
    try:
        hash_bytes(text)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    return text


def _byte_range(header: str, size: int) -> tuple[int, int]:
    """The offsets (end exclusive) that a Range header asks for; the whole file without one."""
    if not header:
        return 0, size
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", header)
    if found is None:
        raise HTTPException(400, f"{header!r} is not a range of bytes")
    start = int(found[1])
    end = min(int(found[2]) + 1, size) if found[2] else size
    if start >= end:
        raise HTTPException(416, f"the file has {size} bytes")
    return start, end
