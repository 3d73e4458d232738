"""A judge behind an OpenAI-compatible endpoint, as a program: run it, and read its address.

It marks an answer by how many letters z it has, up to 10, and refuses who lacks the key.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY, MODEL = "the-key", "z-counter"


class Judge(BaseHTTPRequestHandler):
    """Answers `/v1/chat/completions`."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self.reply(401, {"error": {"message": "no key"}})
        elif self.path != "/v1/chat/completions" or body["model"] != MODEL:
            self.reply(404, {"error": {"message": f"no model {body['model']}"}})
        else:
            (message,) = body["messages"]
            answer = message["content"].partition("ANSWER: ")[2]
            content = f"I give it {min(answer.count('z'), 10)}. Others may differ: 3."
            self.reply(200, {"choices": [{"message": {"role": "assistant", "content": content}}]})

    def reply(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}/v1\n")
    sys.stdout.flush()
    server.serve_forever()
