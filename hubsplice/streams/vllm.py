"""vLLM in a process, and if need be an environment, of its own."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from hubsplice.errors import HubspliceError
from hubsplice.streams.other_python import OtherPython, copied, environment, last_lines

_RUNNER = Path(__file__).with_name("vllm_runner.py")
_POLL_SECONDS = 0.05
_GRACE_SECONDS = 60

# vLLM begins each line of an error with the process that it is from, once for each model so far.
_RANK = re.compile(r"^(\[rank\d+\]: *)+")


class VllmProcess:
    """Jobs, as `vllm_runner` describes them, one after another; a context manager.

    The process starts with the first job, and keeps a model loaded while jobs ask for the same.
    """

    def __init__(self, python: Path) -> None:
        """Name the interpreter of the environment that vLLM is installed in."""
        self._python = OtherPython(python, "vLLM", "vllm")
        self._folder: TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._jobs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close(at_once=error is not None)

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run one job.

        Raises:
            CheckpointError: vLLM failed; the message ends with what it said last.
            UnsupportedError: there is no such interpreter, or it has no vLLM.
        """
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="hubsplice-vllm-")
        folder = Path(self._folder.name)
        if self._process is None:
            self._process = self._started(folder)
        self._jobs += 1
        given, made = (folder / f"{what}-{self._jobs}.json" for what in ("job", "result"))
        given.write_text(json.dumps(job), encoding="utf-8")
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps([str(given), str(made)]) + "\n")
            self._process.stdin.flush()
        except OSError:
            # It ended before it was asked; what it said tells why.
            self._process.wait()
        while not made.is_file():
            if self._process.poll() is not None and not made.is_file():
                raise self._failure(folder)
            time.sleep(_POLL_SECONDS)
        result: dict[str, Any] = json.loads(made.read_text(encoding="utf-8"))
        given.unlink()
        made.unlink()
        return result

    def close(self, *, at_once: bool = False) -> None:
        """End the process, and let its memory go.

        Args:
            at_once: do not wait for a job that it may be at.
        """
        process, self._process = self._process, None
        if process is not None:
            if at_once:
                process.terminate()
            try:
                process.communicate(timeout=_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _started(self, folder: Path) -> subprocess.Popen[str]:
        runner = copied(_RUNNER, folder)
        try:
            with (folder / "said.txt").open("w", encoding="utf-8") as said:
                return subprocess.Popen(  # noqa: S603 - the user names the interpreter
                    [self._python.path, runner],
                    env=environment(),
                    stdin=subprocess.PIPE,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
        except OSError as error:
            raise self._python.not_run(error) from None

    def _failure(self, folder: Path) -> HubspliceError:
        text = (folder / "said.txt").read_text(encoding="utf-8", errors="replace")
        return self._python.failed("vLLM", [_RANK.sub("", line) for line in last_lines(text)])


def run_vllm(python: Path, jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run jobs with the vLLM of another environment, in one process.

    Raises:
        CheckpointError: vLLM failed; the message ends with what it said last.
        UnsupportedError: there is no such interpreter, or it has no vLLM.
    """
    with VllmProcess(python) as process:
        return [process.run(job) for job in jobs]
