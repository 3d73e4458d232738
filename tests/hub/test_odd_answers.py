"""Servers at HF_ENDPOINT whose answers no Hub gives, and tokens that no Hub takes.

Every command that asks a Hub ends in a message that names the server or the token.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.hub.conftest import forker
from tests.hub.forking import Forker
from tests.local_server import served

__all__ = ["forker"]

REPO = "me/spliced"


def _server(kind: str, folder: Path) -> AbstractContextManager[str]:
    """A server of one kind; `64 hex` and `no commit` have `folder` as a repository."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            path = self.path.partition("?")[0]
            if kind == "a page to log in" and path != "/login":
                self.send(302, b"", Location="/login")
            elif kind == "endless redirects":
                self.send(302, b"", Location=self.path)
            elif kind == "a redirect to nowhere":
                self.send(302, b"")
            elif kind == "another protocol":
                self.send(302, b"", Location="ftp://a/b")
            elif kind in ("64 hex", "no commit", "a path"):
                self.send_repository(path)
            else:
                self.send(200, b"[]" if kind == "a list" else b"{}")

        def send_repository(self, path: str) -> None:
            commit = {"64 hex": "ab" * 32, "no commit": None, "a path": "../../elsewhere"}[kind]
            names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
            resolved = re.match(rf"/{REPO}/resolve/[^/]+/(.*)", path)
            if path.startswith(f"/api/models/{REPO}/tree/"):
                entries = [
                    {"type": "file", "path": name, "size": 1, "oid": "a" * 40} for name in names
                ]
                self.send(200, json.dumps(entries).encode())
            elif path.startswith(f"/api/models/{REPO}"):
                siblings = [{"rfilename": name} for name in names]
                about = {"id": REPO, "sha": commit, "siblings": siblings, "tags": []}
                self.send(200, json.dumps(about).encode())
            elif resolved and resolved[1] in names:
                data = (folder / resolved[1]).read_bytes()
                tag = f'"{hashlib.sha256(data).hexdigest()}"'
                self.send(200, data, **{"ETag": tag, "X-Repo-Commit": commit or ""})
            else:
                self.send(404, b"", **{"X-Error-Code": "EntryNotFound"})

        def send(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = answer  # noqa: N815

    return served(Handler)


def _run(
    forker: Forker, endpoint: str, folder: Path, *arguments: str, token: str = "hf_writer"
) -> tuple[int, str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment = kept | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": token,
        "NO_PROXY": "*",
    }
    done = forker.run(list(arguments), environment, folder)
    assert "Traceback" not in done.stderr, done.stderr
    assert token not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def _commands(folder: Path) -> dict[tuple[str, ...], int]:
    """Commands that ask a Hub, each in its own way, and their exit codes where it is none."""
    (folder / "recipe.yaml").write_text(
        "base_model: me/base\nsplices:\n  - after_layer: 1\n"
        "    edits: [{kind: steer, vector: {path: v.safetensors}, strength: 3}]\n",
        encoding="utf-8",
    )
    return {
        ("serve", REPO): 7,
        ("check", "recipe.yaml"): 4,
        ("publish", "recipe.yaml", "--repo-id", "me/new", "--dry-run"): 7,
    }


@pytest.mark.parametrize("kind", ["a page to log in", "endless redirects"])
def test_a_server_that_is_no_hub(forker: Forker, original: Path, tmp_path: Path, kind: str) -> None:
    with _server(kind, original) as endpoint:
        for arguments, expected in _commands(tmp_path).items():
            code, _, err = _run(forker, endpoint, tmp_path, *arguments)
            assert code == expected, err
            assert "is it a Hub?" in err


@pytest.mark.parametrize("kind", ["another protocol", "an empty object"])
def test_other_answers_of_no_hub(forker: Forker, original: Path, tmp_path: Path, kind: str) -> None:
    with _server(kind, original) as endpoint:
        code, _, err = _run(forker, endpoint, tmp_path, "serve", REPO)
        assert code == 7, err
        assert ("ftp://" if kind == "another protocol" else "is it a Hub?") in err


def test_commits_that_a_hub_may_have_and_others(
    forker: Forker, original: Path, tmp_path: Path
) -> None:
    for kind, expected in (("64 hex", 0), ("no commit", 7), ("a path", 7)):
        with _server(kind, original) as endpoint:
            (tmp_path / kind).mkdir()
            code, _, err = _run(forker, endpoint, tmp_path / kind, "serve", REPO)
            assert code == expected, err
            assert not expected or "is it a Hub?" in err
    assert not (tmp_path / "elsewhere").exists()


def test_a_token_that_is_no_token(forker: Forker, original: Path, tmp_path: Path) -> None:
    token = "hf_töken"
    with _server("64 hex", original) as endpoint:
        for arguments, expected in _commands(tmp_path).items():
            code, _, err = _run(forker, endpoint, tmp_path, *arguments, token=token)
            assert code == expected, err
            assert "the token for the Hub holds a character that no token has" in err
