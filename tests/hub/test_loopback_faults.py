"""Every fault of the loopback Hub does what it says, as an unmodified client meets it."""

from __future__ import annotations

import hashlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.loopback.client import LoopbackHub
from tests.loopback.faults import (
    ApplyThenDrop,
    ApplyThenStatus,
    CommitByOther,
    Delay,
    Drop,
    ExpireToken,
    FullDisk,
    KillAfter,
    KillBefore,
    Slow,
    Status,
    TagByOther,
)
from tests.loopback.session import ClientSession

WRITER = {"Authorization": "Bearer hf_writer"}
MODEL = {"name": "model", "organization": "me"}
COMMIT = "/api/models/me/model/commit/main"
PUBLISH = """
from huggingface_hub import CommitOperationAdd, HfApi
api = HfApi()
operations = [CommitOperationAdd("a.txt", b"1"), CommitOperationAdd("w.safetensors", b"2" * 9999)]
parent = api.model_info("me/model").sha
try:
    commit = api.create_commit("me/model", operations, commit_message="1", parent_commit=parent)
    api.create_tag("me/model", tag="v1", revision=commit.oid)
    show("done")
except Exception as error:
    response = getattr(error.__cause__ or error, "response", None)
    show(f"{type(error).__name__} {response is not None and response.status_code}")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def hub(server: LoopbackHub) -> LoopbackHub:
    """The double without faults and counts, and with an empty repository me/model."""
    server.clear_faults()
    httpx2.request("DELETE", f"{server.endpoint}/api/repos/delete", json=MODEL, headers=WRITER)
    create(server)
    server.reset_counters()
    return server


def create(hub: LoopbackHub) -> None:
    answer = httpx2.post(f"{hub.endpoint}/api/repos/create", json=MODEL, headers=WRITER)
    assert answer.status_code == 200


@pytest.fixture(scope="module")
def session(
    server: LoopbackHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClientSession]:
    with ClientSession(server, tmp_path_factory.mktemp("home")) as session:
        yield session


def publish(hub: LoopbackHub, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Publish from a process that may be killed."""
    return hub.run("show = print\n" + PUBLISH, hub.environment(tmp_path / "home"))


def titles(hub: LoopbackHub) -> list[str]:
    return [commit.title for commit in hub.history("me/model")]


def test_a_status_for_the_nth_request(hub: LoopbackHub) -> None:
    hub.fault(Status(status=503), method="GET", path="/api/models/me/model$", skip=1, times=2)
    url = f"{hub.endpoint}/api/models/me/model"
    statuses = [httpx2.get(url).status_code for _ in range(5)]
    assert statuses == [200, 503, 503, 200, 200]
    assert [request.status for request in hub.counters().log] == statuses
    assert httpx2.get(f"{url}/refs").status_code == 200
    [fault] = hub.faults()
    assert fault.hits == 2


def test_a_status_without_end_until_faults_are_cleared(hub: LoopbackHub) -> None:
    hub.fault(Status(status=429, retry_after=7), times=None)
    url = f"{hub.endpoint}/api/models/me/model"
    answers = [httpx2.get(url) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429] * 3
    assert answers[0].headers["Retry-After"] == "7"
    hub.clear_faults()
    assert httpx2.get(url).status_code == 200


def test_a_failed_commit_changes_nothing(hub: LoopbackHub, session: ClientSession) -> None:
    hub.fault(Status(status=500), path=COMMIT)
    assert session.run(PUBLISH) == "HfHubHTTPError 500"
    assert titles(hub) == ["initial commit"]
    assert session.run(PUBLISH) == "done"
    # What was sent before the failure isn't sent again.
    assert hub.counters().lfs_bytes == 9999


def test_a_commit_that_succeeds_and_says_otherwise(
    hub: LoopbackHub, session: ClientSession
) -> None:
    hub.fault(ApplyThenStatus(status=504), path=COMMIT)
    assert session.run(PUBLISH) == "HfHubHTTPError 504"
    assert titles(hub) == ["1", "initial commit"]
    assert hub.tags("me/model") == {}


def test_a_connection_closed_without_an_answer(hub: LoopbackHub, session: ClientSession) -> None:
    hub.fault(Drop(), path=COMMIT)
    assert session.run(PUBLISH).split()[0] in ("RemoteProtocolError", "ReadError")
    assert titles(hub) == ["initial commit"]
    assert hub.counters().log[-1].status == 0


def test_a_commit_whose_answer_is_lost(hub: LoopbackHub, session: ClientSession) -> None:
    hub.fault(ApplyThenDrop(), path=COMMIT)
    assert session.run(PUBLISH).split()[0] in ("RemoteProtocolError", "ReadError")
    assert titles(hub) == ["1", "initial commit"]


def test_a_delayed_answer(hub: LoopbackHub) -> None:
    hub.fault(Delay(seconds=600), path="/refs")
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.get(f"{hub.endpoint}/api/models/me/model/refs", timeout=0.3)
    assert httpx2.get(f"{hub.endpoint}/api/models/me/model/refs").status_code == 200


def test_a_slow_upload(hub: LoopbackHub) -> None:
    hub.fault(Slow(bytes_per_second=100), path="/validate-yaml")
    url, body = f"{hub.endpoint}/api/validate-yaml", {"content": "x" * 60_000}
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(url, json=body, timeout=0.3)
    assert httpx2.post(url, json=body).status_code == 200


def test_a_client_that_goes_away_amid_an_upload(tmp_path: Path) -> None:
    content = b"1" * 9999
    oid = hashlib.sha256(content).hexdigest()
    with LoopbackHub(tmp_path / "hub") as hub:
        create(hub)
        body = {
            "operation": "upload",
            "objects": [{"oid": oid, "size": len(content)}],
        }
        batch = f"{hub.endpoint}/me/model.git/info/lfs/objects/batch"

        def actions() -> Any:
            return httpx2.post(batch, json=body, headers=WRITER).json()["objects"][0].get("actions")

        url = urlsplit(actions()["upload"]["href"])
        assert url.port is not None
        with socket.create_connection(("127.0.0.1", url.port)) as connection:
            head = f"PUT {url.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
            connection.sendall(head.encode() + content[:5000])
        while not any(r.method == "PUT" and r.status for r in hub.counters().log):
            time.sleep(0.02)
        assert actions()
        # Leaving the block raises if this was an error inside the double.


def test_a_client_killed_before_its_commit(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.fault(KillBefore(), path=COMMIT)
    assert publish(hub, tmp_path).returncode == -signal.SIGKILL
    assert titles(hub) == ["initial commit"]
    assert publish(hub, tmp_path).stdout == "done\n"
    assert hub.counters().lfs_bytes == 9999


def test_a_client_killed_after_its_commit(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.fault(KillAfter(), path=COMMIT)
    assert publish(hub, tmp_path).returncode == -signal.SIGKILL
    assert titles(hub) == ["1", "initial commit"]
    assert hub.tags("me/model") == {}


def test_a_process_killed_by_its_id(hub: LoopbackHub) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        hub.fault(KillBefore(pid=process.pid), path="/refs")
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            httpx2.get(f"{hub.endpoint}/api/models/me/model/refs")
        assert process.wait() == -signal.SIGKILL


def test_a_full_disk(hub: LoopbackHub, session: ClientSession) -> None:
    hub.fault(FullDisk(), method="PUT", path="/_storage/")
    assert session.run(PUBLISH) == "RuntimeError 507"
    assert titles(hub) == ["initial commit"]
    assert session.run(PUBLISH) == "done"


def test_a_token_that_expires_on_the_way(hub: LoopbackHub, session: ClientSession) -> None:
    hub.fault(ExpireToken(), path=COMMIT)
    assert session.run(PUBLISH) == "HfHubHTTPError 401"
    assert titles(hub) == ["initial commit"]
    whoami = f"{hub.endpoint}/api/whoami-v2"
    assert httpx2.get(whoami, headers=WRITER).status_code == 401
    assert httpx2.get(whoami, headers={"Authorization": "Bearer hf_other"}).status_code == 200
    hub.clear_faults()
    assert httpx2.get(whoami, headers=WRITER).status_code == 200


def test_a_concurrent_writer(hub: LoopbackHub, session: ClientSession) -> None:
    hub.fault(CommitByOther(repo="me/model", content="9", title="Mine"), path=COMMIT)
    assert session.run(PUBLISH) == "HfHubHTTPError 412"
    assert titles(hub) == ["Mine", "initial commit"]
    assert hub.history("me/model")[0].author == "someone-else"


def test_a_conflicting_tag(hub: LoopbackHub, session: ClientSession) -> None:
    first = hub.history("me/model")[0].oid
    hub.fault(TagByOther(repo="me/model", tag="v1", revision=first), path="/tag/")
    assert session.run(PUBLISH) == "HfHubHTTPError 409"
    assert hub.tags("me/model") == {"v1": first}
    assert len(titles(hub)) == 2


def test_faults_of_the_xet_storage(tmp_path: Path) -> None:
    with LoopbackHub(tmp_path / "hub", "xet") as hub:
        create(hub)
        # The client repeats what fails for a moment.
        hub.fault(Status(status=503), method="POST", path="/v1/xorbs/")
        hub.fault(KillAfter(), method="POST", path="/v1/shards")
        assert publish(hub, tmp_path).returncode == -signal.SIGKILL
        assert [fault.hits for fault in hub.faults()] == [1, 1]
        assert titles(hub) == ["initial commit"]
        sent = hub.counters().xorb_bytes
        assert publish(hub, tmp_path).stdout == "done\n"
        assert titles(hub) == ["1", "initial commit"]
        assert hub.counters().xorb_bytes == sent
