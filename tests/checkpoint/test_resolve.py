"""Finding a base: folders, and a loopback protocol double of the Hub (which is not the Hub).

huggingface_hub runs unpatched, in a process whose HF_ENDPOINT points at the double.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hubsplice.checkpoint.resolve import ResolvedBase, resolve_base
from hubsplice.errors import RecipeError

MakeBase = Callable[..., Path]
COMMIT = "0123456789" * 4


def test_a_local_folder(tmp_path: Path) -> None:
    assert resolve_base(str(tmp_path), None, weights=True) == ResolvedBase(
        tmp_path, None, None, complete=True
    )
    with pytest.raises(
        RecipeError, match=r"revision: 'main' was given, and base_model .* is a local"
    ):
        resolve_base(str(tmp_path), "main", weights=True)


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "../none", "~/no-such-folder"])
def test_a_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(RecipeError, match=r"base_model: '.*': there is no such folder"):
        resolve_base(name, None, weights=False)


def test_a_file_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="it is a file, expected a folder"):
        resolve_base("model", None, weights=False)


def test_an_impossible_id() -> None:
    with pytest.raises(RecipeError, match="neither an existing folder nor a Hub model id"):
        resolve_base("one/two/three", None, weights=False)


class HubDouble(ThreadingHTTPServer):
    """Serves one repository, `owner/model`, from a folder, and refuses others as the Hub does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: HubDouble

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is given
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        if "owner/gated" in path:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        elif path.startswith("/api/models/owner/model/revision/"):
            if path.rsplit("/", 1)[1] in ("main", "v1", COMMIT):
                self._send(200, json.dumps({"id": "owner/model", "sha": COMMIT}).encode(), {}, body)
            else:
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        elif path == f"/api/models/owner/model/tree/{COMMIT}":
            self._send(200, json.dumps(self._tree()).encode(), {}, body)
        elif path.startswith(f"/owner/model/resolve/{COMMIT}/"):
            name = path.split(COMMIT + "/")[1]
            content = (self.server.folder / name).read_bytes()
            headers = {
                "X-Repo-Commit": COMMIT,
                "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            }
            if body:
                self.server.served.append(name)
            self._send(200, content, headers, body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def _tree(self) -> list[dict[str, Any]]:
        files = (path for path in self.server.folder.rglob("*") if path.is_file())
        return [
            {
                "type": "file",
                "path": path.relative_to(self.server.folder).as_posix(),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }
            for path in files
        ]

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(make_base: MakeBase) -> Iterator[HubDouble]:
    with HubDouble(make_base("published", sharded=True)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


RESOLVE = """
import json, sys
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.resolve import resolve_base
from hubsplice.errors import HubspliceError

for name, revision, weights in json.loads(sys.argv[1]):
    try:
        found = resolve_base(name, revision, weights=weights)
        files = sorted(p.relative_to(found.folder).as_posix()
                       for p in found.folder.rglob("*") if p.is_file())
        if weights:
            BaseCheckpoint.open(found.folder)
        answer = [found.repo_id, found.commit, files]
    except HubspliceError as error:
        answer = [type(error).__name__, str(error)]
    print("answer:", json.dumps(answer))
"""


def answers(
    endpoint: str, home: Path, *questions: tuple[str, str | None, bool], **environment: str
) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, json.dumps(questions)],
        env={
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "",
            "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return [json.loads(line[8:]) for line in lines if line.startswith("answer: ")]


def test_from_the_hub(hub: HubDouble, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    home = tmp_path / "home"
    (described,) = answers(endpoint, home, ("owner/model", "v1", False))
    assert described[:2] == ["owner/model", COMMIT]
    light = {
        "LICENSE.txt",
        "README.md",
        "USE_POLICY.md",
        "additional_chat_templates/tools.jinja",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
    }
    assert set(described[2]) == light

    full, missing, gated, unknown = answers(
        endpoint,
        home,
        ("owner/model", None, True),
        ("owner/model", "v9", False),
        ("owner/gated", None, False),
        ("owner/unknown", None, False),
    )
    shards = {path.name for path in hub.folder.glob("model-*.safetensors")}
    assert full[:2] == ["owner/model", COMMIT]
    assert set(full[2]) == light | shards
    # Nothing was fetched twice, and no pickle, code or foreign weights at all.
    assert sorted(hub.served) == sorted(light | shards)
    assert missing[0] == "RecipeError"
    assert "revision: 'v9' is no commit, branch or tag of owner/model" in missing[1]
    assert gated[0] == "CheckpointError"
    assert "'owner/gated' is gated: accept its terms" in gated[1]
    assert unknown[0] == "RecipeError"
    assert "'owner/unknown' is neither an existing folder nor a model on the Hub" in unknown[1]


def test_without_a_network(hub: HubDouble, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    home = tmp_path / "home"
    answers(endpoint, home, ("owner/model", None, True))
    hub.served.clear()
    cached, absent = answers(
        endpoint,
        home,
        ("owner/model", None, True),
        ("owner/absent", None, False),
        HF_HUB_OFFLINE="1",
    )
    assert cached[:2] == ["owner/model", COMMIT]
    assert absent[0] == "CheckpointError"
    assert "'owner/absent' could not be fetched and is not in the local cache: " in absent[1]
    assert hub.served == []
    (refused,) = answers("http://127.0.0.1:9", tmp_path / "other", ("owner/model", "v1", False))
    assert refused[0] == "CheckpointError"
    assert "'owner/model' at revision 'v1' could not be fetched" in refused[1]


def test_code_that_a_config_asks_for_is_not_fetched(hub: HubDouble, tmp_path: Path) -> None:
    path = hub.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModel": "x.X"}}))
    (hub.folder / "x.py").write_text("raise SystemExit")
    (found,) = answers(
        f"http://127.0.0.1:{hub.server_port}", tmp_path / "home", ("owner/model", None, True)
    )
    assert found[:2] == ["owner/model", COMMIT]
    assert not [name for name in hub.served if name.endswith(".py")]
