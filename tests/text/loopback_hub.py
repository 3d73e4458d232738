"""A Hub on the loopback interface with one dataset, `me/notes`: as much of it as reading needs."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler

from tests.local_server import served

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "train.jsonl": b'{"body": "first"}\n{"body": null}\n{"body": "second"}\n',
    "test.jsonl": b'{"body": "held"}\n',
}


def loopback_hub() -> AbstractContextManager[str]:
    """Serve the dataset; gives the server's address."""
    return served(_Hub)


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        if not re.match(r"(/api)?/datasets/me/notes(/|$)", path):
            return self._send(404, error="RepoNotFound")
        revision = re.search(r"/(?:revision|tree|resolve)/([^/]+)", path)
        if revision and revision[1] not in ("main", COMMIT):
            return self._send(404, error="RevisionNotFound")
        if "/resolve/" in path:
            content = FILES.get(path.rpartition("/")[2])
            if content is None:
                return self._send(404, error="EntryNotFound")
            return self._send(200, content)
        if "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": "a" * 40}
                for name, content in FILES.items()
            ]
            return self._send(200, json.dumps(entries).encode())
        siblings = [{"rfilename": name} for name in FILES]
        about = {"_id": "1", "id": "me/notes", "sha": COMMIT, "siblings": siblings, "tags": []}
        return self._send(200, json.dumps(about).encode())

    def _send(self, status: int, body: bytes = b"", *, error: str | None = None) -> None:
        wanted = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.send_response(206 if wanted else status)
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2]), len(body) - 1)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
            body = body[first : last + 1]
        if error is not None:
            self.send_header("X-Error-Code", error)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"0"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Tests print nothing."""
