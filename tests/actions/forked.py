"""Commands for the PATH of scripts, without the seconds that their imports take.

One process imports what they need, and forks for every command that is asked of it. What reads the
environment when it is imported has read that process's: a command with other settings for the Hub
is run by an interpreter of its own.
"""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Self

from hubsplice.text.builtin import builtin_corpus
from tests.forked_child import become

_ROOT = Path(__file__).parents[2]
# Looked at when a request is made, and not before.
_READ_LATE = ("HF_TOKEN", "HF_OIDC_RESOURCE")
_OTHER_SETTINGS = -1
_IMPORTED = (
    "hubsplice.building.build",
    "hubsplice.cli",
    "hubsplice.github_actions.summary",
    "hubsplice.github_actions.target",
    "hubsplice.github_actions.verify",
    "hubsplice.hub.publish",
    "matplotlib.figure",
    "transformers.generation",
    "transformers.models.llama.modeling_llama",
)

# Standing alone, since it must be quick: it gives its files to the server, and waits.
_CLIENT = """#!{python} -IS
import json, os, socket, sys
command = {command} + sys.argv[1:]
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"x"], [0, 1, 2])
    request = {{"argv": command, "environment": dict(os.environ), "cwd": os.getcwd()}}
    server.sendall(json.dumps(request).encode() + b"\\n")
    code = int(server.makefile().readline())
if code == {other}:
    os.execv({python!r}, [{python!r}, *command])
sys.exit(code)
"""


class ForkedCommands:
    """`python` and `hubsplice` in a folder; use it as a context manager."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        address = str(folder / "server")
        for name, words in {"python": [], "hubsplice": ["-m", "hubsplice"]}.items():
            script = _CLIENT.format(
                python=sys.executable, command=words, address=address, other=_OTHER_SETTINGS
            )
            (folder / name).write_text(script, encoding="utf-8")
            (folder / name).chmod(0o755)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.actions.forked", address],
            cwd=_ROOT,
            env=environment | {"PYTHONPATH": str(_ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"listening\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def _settings(environment: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k.startswith("HF_") and k not in _READ_LATE}


def _serve(address: str) -> None:
    for module in _IMPORTED:
        import_module(module)
    # What it reads is kept, for every build.
    builtin_corpus()
    own = _settings(dict(os.environ))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("listening", flush=True)  # noqa: T201
        while True:
            asked, _ = server.accept()
            with asked:
                _, files, _, _ = socket.recv_fds(asked, 1, 3)
                request = json.loads(asked.makefile().readline())
                code = _OTHER_SETTINGS
                if _settings(request["environment"]) == own:
                    child = os.fork()
                    if child == 0:
                        run = partial(_run, files, request["argv"])
                        become(run, request["environment"], request["cwd"])
                    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                for file in files:
                    os.close(file)
                asked.sendall(f"{code}\n".encode())


def _run(files: list[int], argv: list[str]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
    flag, module, *sys.argv[1:] = argv
    assert flag == "-m"
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
