"""Servers that are not the Hub: without Xet, without a check of cards, or not Hubs at all."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from hubsplice.hub.failures import is_transient
from hubsplice.transport import endpoint_problem
from tests.conftest import Command
from tests.hub.conftest import Publisher
from tests.hub.test_publish import of_folder, published_files
from tests.loopback.client import LoopbackHub
from tests.loopback.faults import Status

WITH_XET = {"HF_HUB_DISABLE_XET": "0"}


@pytest.mark.parametrize("hub", ["lfs"], indirect=True)
def test_a_server_without_xet_gets_files_by_lfs(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    publish.more = WITH_XET
    done = publish(built, "--repo-id", repo, "--tag", "v1.0")
    assert done.code == 0, done.err
    assert "the Hub has no Xet storage, so files were sent by LFS" in done.err
    assert "HF_HUB_DISABLE_XET=1" in done.err
    assert published_files(hub, repo) == of_folder(built)
    assert hub.counters().count("GET", "/xet-write-token/") == 1


@pytest.mark.parametrize("status", [404, 418, 501])
def test_an_answer_that_stays_the_same_ends_at_once(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub, status: int
) -> None:
    hub.fault(Status(status=status), method="GET", path="/api/models/", times=None)
    refused = publish(built, "--repo-id", repo)
    assert refused.code == 7
    assert f"{hub.endpoint} answered {status}" in refused.err
    assert "it will answer the same again" in refused.err
    assert "run the same command again" not in refused.err
    assert sum(fault.hits for fault in hub.faults()) == 1


def test_offline(publish: Publisher, built: Path, repo: str, hub: LoopbackHub) -> None:
    publish.more = {"HF_HUB_OFFLINE": "1"}
    refused = publish(built, "--repo-id", repo)
    assert refused.code == 7
    assert "HF_HUB_OFFLINE is set" in refused.err
    assert not is_transient(OfflineModeIsEnabled("offline"))


@pytest.mark.parametrize(
    "endpoint", ["huggingface", "https://", "ftp://a.b", "http://127.0.0.1:99999", "http://["]
)
def test_an_endpoint_that_is_no_address(
    endpoint: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    found = command("verify", "me/model")
    assert found.code == 7
    assert found.err.startswith(f"error: HF_ENDPOINT is {endpoint!r}, which is no web address")


def test_what_may_help_again() -> None:
    assert endpoint_problem("https://huggingface.co") is None
    assert endpoint_problem("http://127.0.0.1:8000/mirror") is None
    assert is_transient(httpx2.ConnectError("[Errno -2] Name or service not known"))
    assert not is_transient(httpx2.UnsupportedProtocol("no http://"))
