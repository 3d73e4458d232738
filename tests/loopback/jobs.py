"""Jobs: commands that the double really runs, each in a process and a folder of its own.

There is no container. A mounted volume is a copy in the job's folder, and its path in the command
is replaced by that folder's. `uv run` is answered by a stand-in, which installs nothing: what it is
told to run is the code of this repository. A test may have it run a shell script instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.loopback.repository import timestamp

_ROOT = Path(__file__).parents[2]
_SCRIPT = "STAND_IN_SCRIPT"
_UV = f"""#!{sys.executable}
import os, sys
command = sys.argv[2:]
assert sys.argv[1] == "run", sys.argv
while command[0] in ("--with", "--python"):
    del command[:2]
if script := os.environ.get("{_SCRIPT}"):
    command = ["sh", "-c", script, *command]
elif command[0] == "hubsplice":
    command = [sys.executable, "-m", *command]
os.execvp(command[0], command)
"""
_KILLED_WITH_PARENT = 1  # PR_SET_PDEATHSIG

MemoryAndPrice = tuple[str, str, str | None, int]
HARDWARE: dict[str, MemoryAndPrice] = {
    "cpu-basic": ("2 vCPU", "16 GB", None, 167),
    "a10g-small": ("4 vCPU", "15 GB", "24 GB", 16_667),
    "a100-large": ("12 vCPU", "142 GB", "80 GB", 41_667),
}
"""Processor, memory, memory of the GPU, and micro-dollars a minute, by flavor."""

ENDED = ("COMPLETED", "ERROR", "CANCELED", "DELETED")


@dataclass
class Job:
    """A job; `lines` are the events of its log."""

    id: str
    spec: dict[str, Any]
    owner: str
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: datetime | None = None
    finished: datetime | None = None
    stage: str = "SCHEDULING"
    message: str | None = None
    lines: list[dict[str, str]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def log(self, text: str) -> None:
        self.lines.append({"data": text, "timestamp": timestamp(datetime.now(UTC))})

    def end(self, stage: str, message: str | None = None) -> None:
        """End the job, unless it has ended."""
        if self.stage not in ENDED:
            self.stage, self.message, self.finished = stage, message, datetime.now(UTC)

    def cancel(self) -> None:
        self.end("CANCELED")
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def info(self) -> dict[str, Any]:
        """What the Hub says of it; secrets are not said."""
        spec = self.spec
        shown = ("command", "arguments", "environment", "flavor", "labels", "volumes")
        return {
            "id": self.id,
            "createdAt": timestamp(self.created),
            "startedAt": self.started and timestamp(self.started),
            "finishedAt": self.finished and timestamp(self.finished),
            "dockerImage": spec.get("dockerImage"),
            "owner": {"id": f"{self.owner}-id", "name": self.owner, "type": "user"},
            "initiator": {"id": f"{self.owner}-id", "name": self.owner, "type": "user"},
            "status": {"stage": self.stage, "message": self.message},
            "secrets": {},
            **{key: spec.get(key) for key in shown},
        }


class Jobs:
    """All jobs. `mount` writes the files of a volume into a folder."""

    def __init__(self, root: Path, mount: Callable[[dict[str, Any], Path], None]) -> None:
        self.by_id: dict[str, Job] = {}
        self.script: str | None = None
        self._root = root
        self._mount = mount

    def start(self, spec: dict[str, Any], owner: str) -> Job:
        """Start a job, which is scheduled for a moment and then runs."""
        job = Job(secrets.token_hex(12), spec, owner)
        self.by_id[job.id] = job
        threading.Thread(target=self._run, args=[job, self.script], daemon=True).start()
        return job

    def _run(self, job: Job, script: str | None) -> None:
        folder = self._root / job.id
        command = list(job.spec["command"])
        for number, volume in enumerate(job.spec.get("volumes") or []):
            mounted = folder / f"volume-{number}"
            mounted.mkdir(parents=True)
            self._mount(volume, mounted)
            path = volume["mountPath"]
            command = [
                str(mounted) + part.removeprefix(path) if part.startswith(f"{path}/") else part
                for part in command
            ]
        tools, work = folder / "bin", folder / "work"
        tools.mkdir(parents=True)
        work.mkdir()
        (tools / "uv").write_text(_UV)
        (tools / "uv").chmod(0o755)
        environment = os.environ | {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(_ROOT),
            "HF_HOME": str(folder / "home"),
            "HF_XET_TELEMETRY_ENABLED": "false",
            "NO_PROXY": "*",
            "COLUMNS": "200",
            **({} if script is None else {_SCRIPT: script}),
            **job.spec.get("environment", {}),
            **job.spec.get("secrets", {}),
        }
        if job.stage in ENDED:
            return
        process = subprocess.Popen(
            command,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_end_with_the_double,
        )
        job.process, job.stage, job.started = process, "RUNNING", datetime.now(UTC)
        job.log(f"===== Job started at {timestamp(job.started)} =====")
        assert process.stdout is not None
        for line in process.stdout:
            job.log(line.rstrip("\n"))
        code = process.wait()
        if code == 0:
            job.end("COMPLETED")
        else:
            code = 128 - code if code < 0 else code
            reason = "OOMKilled" if code == 137 else "Error"
            job.end("ERROR", f"Job failed with exit code: {code}. Reason: {reason}")


def _end_with_the_double() -> None:
    ctypes.CDLL(None).prctl(_KILLED_WITH_PARENT, signal.SIGKILL)
