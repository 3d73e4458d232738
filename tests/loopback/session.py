"""A process that runs what a test sends it, so that huggingface_hub is imported once for many."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.loopback.client import LoopbackHub

# Settings of the Hub are read at import, but for the token.
_WORKER = """
import json, os, sys, traceback
for line in sys.stdin:
    request = json.loads(line)
    os.environ.pop("HF_TOKEN", None)
    if request["token"] is not None:
        os.environ["HF_TOKEN"] = request["token"]
    shown = []
    try:
        exec(request["script"], {"show": shown.append})
        answer = {"shown": shown[-1] if shown else None}
    except Exception:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
"""


class ClientSession:
    """A client of a double, with one HF_HOME; use it as a context manager."""

    def __init__(self, hub: LoopbackHub, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            env=hub.environment(home, token=None),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, token: str | None = "hf_writer") -> Any:
        """Run Python code with nothing but `show` defined; gives what it last showed, as JSON.

        Raises AssertionError with the traceback if the code does.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"script": script, "token": token}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["shown"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
