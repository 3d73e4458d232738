"""Commands as processes of their own, without the seconds that their imports take.

One process imports PyTorch and the command line, and forks for every command. Nothing that reads
the environment when it is imported (huggingface_hub does) is imported before the fork.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.forked_child import become

ROOT = Path(__file__).parents[2]


class Forker:
    """Runs `hubsplice` commands, one at a time; `stop` it in the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub.forking"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, arguments: list[str], environment: dict[str, str], cwd: Path
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; a negative exit code is the signal that killed it."""
        out, err = self._folder / "stdout", self._folder / "stderr"
        request = {
            "argv": ["hubsplice", *arguments],
            "environment": environment,
            "cwd": str(cwd),
            "stdout": str(out),
            "stderr": str(err),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _serve() -> None:
    import torch  # noqa: F401

    import hubsplice.checkpoint.manifest
    import hubsplice.cli
    import hubsplice.fidelity.report  # noqa: F401
    from hubsplice.text.builtin import builtin_corpus

    # What it reads is kept, for every command that builds.
    builtin_corpus()
    assert "huggingface_hub" not in sys.modules
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            request = json.loads(line)
            run = partial(_run, request["argv"], request["stdout"], request["stderr"])
            become(run, request["environment"], request["cwd"])
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def _run(argv: list[str], stdout: str, stderr: str) -> None:
    for number, path in ((0, os.devnull), (1, stdout), (2, stderr)):
        mode = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(path, mode), number)
    sys.argv = argv
    from hubsplice.cli import main

    main()


if __name__ == "__main__":
    _serve()
