"""The OpenAI server, started with the options that the model card prints."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STARTS_WITHIN = 300


def printed_command(card: Path) -> list[str]:
    """The words of the card's `vllm serve` command."""
    text = card.read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^vllm serve .*$", text, re.MULTILINE)
    return shlex.split(line)


@contextmanager
def running(python: Path, command: list[str], folder: Path) -> Iterator[int]:
    """The server, from `folder`; gives its port."""
    program, verb, model, *options = command
    assert (program, verb) == ("vllm", "serve")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    # vLLM's build for CPUs has no working `vllm serve`; this is the same server.
    module = ["-m", "vllm.entrypoints.openai.api_server", "--model", model]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    environment.pop("PYTHONPATH", None)
    # Without TorchDynamo, which would compile for minutes, vLLM refuses to start in another mode.
    more = ["--enforce-eager", "--host", "127.0.0.1"]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, *module, *options, *more, "--port", str(port)],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + STARTS_WITHIN
            while not _healthy(port):
                assert process.poll() is None, log.read_text(errors="replace")[-3000:]
                assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
                time.sleep(1)
            yield port
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _healthy(port: int) -> bool:
    try:
        return request(port, "GET", "/health")[0] == 200
    except OSError:
        return False


def request(port: int, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
