"""Jobs: what there is to run them on, starting, inspecting, listing, reading logs, cancelling."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tests.loopback.accounts import Account
from tests.loopback.errors import HubError
from tests.loopback.hub import Hub
from tests.loopback.jobs import ENDED, HARDWARE, Job
from tests.loopback.routes.common import TheAccount, TheHub, page

router = APIRouter()

_MOST_SILENCE = 600  # turns of the loop without a line, after which the connection is kept alive


@router.get("/api/jobs/hardware")
async def hardware() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "prettyName": name,
            "cpu": cpu,
            "ram": ram,
            "accelerator": vram
            and {
                "type": "gpu",
                "model": name.split("-")[0].upper(),
                "quantity": "1",
                "vram": vram,
                "manufacturer": "Nvidia",
            },
            "unitCostMicroUSD": price,
            "unitCostUSD": price / 1e6,
            "unitLabel": "minute",
        }
        for name, (cpu, ram, vram, price) in HARDWARE.items()
    ]


@router.post("/api/jobs/{namespace}")
async def start(request: Request, hub: TheHub, account: TheAccount, namespace: str) -> Any:
    account = hub.signed_in(account)
    _require_member(account, namespace)
    spec = await request.json()
    if spec["flavor"] not in HARDWARE:
        raise HubError(400, f'Invalid flavor: "{spec["flavor"]}"')
    if not spec.get("dockerImage") and not spec.get("spaceId"):
        raise HubError(400, 'One of "dockerImage" and "spaceId" is required')
    for volume in spec.get("volumes") or []:
        if volume["type"] != "bucket":
            raise HubError(400, "This double mounts buckets only")
        hub.bucket(volume["source"], account)
    return hub.jobs.start(spec, namespace).info()


@router.get("/api/jobs/{namespace}")
async def listed(request: Request, hub: TheHub, account: TheAccount, namespace: str) -> Response:
    _require_member(hub.signed_in(account), namespace)
    labels = [label.partition("=")[::2] for label in request.query_params.getlist("label")]
    found = [
        job.info()
        for job in reversed(hub.jobs.by_id.values())
        if job.owner == namespace
        and all((job.spec.get("labels") or {}).get(key) == value for key, value in labels)
    ]
    return page(request, hub, found, hub.page_size)


@router.get("/api/jobs/{namespace}/{job_id}")
async def inspect(hub: TheHub, account: TheAccount, namespace: str, job_id: str) -> Any:
    return _job(hub, account, namespace, job_id).info()


@router.get("/api/jobs/{namespace}/{job_id}/logs")
async def logs(
    hub: TheHub, account: TheAccount, namespace: str, job_id: str, tail: int | None = None
) -> Response:
    job = _job(hub, account, namespace, job_id)
    first = 0 if tail is None else max(0, len(job.lines) - tail)
    return StreamingResponse(_events(job, first), media_type="text/event-stream")


@router.post("/api/jobs/{namespace}/{job_id}/cancel")
async def cancel(hub: TheHub, account: TheAccount, namespace: str, job_id: str) -> Response:
    hub.signed_in(account)
    job = _job(hub, account, namespace, job_id)
    job.cancel()
    return JSONResponse(job.info())


async def _events(job: Job, sent: int) -> AsyncIterator[str]:
    """The events of a log as they come; it ends with the job."""
    silence = 0
    while True:
        has_ended = job.stage in ENDED
        for event in job.lines[sent:]:
            yield f"data: {json.dumps(event)}\n\n"
            sent, silence = sent + 1, 0
        if has_ended:
            return
        silence += 1
        if silence % _MOST_SILENCE == 0:
            yield ": keep-alive\n\n"
        await asyncio.sleep(0.05)


def _job(hub: Hub, account: Account | None, namespace: str, job_id: str) -> Job:
    job = hub.jobs.by_id.get(job_id)
    if account is None:
        raise HubError(401, "Invalid username or password.")
    if job is None or job.owner != namespace or namespace not in account.namespaces:
        raise HubError(404, "Job not found")
    return job


def _require_member(account: Account, namespace: str) -> None:
    if account.only_repo is not None or namespace not in account.namespaces:
        raise HubError(403, f"You don't have the rights to run jobs in {namespace}")
