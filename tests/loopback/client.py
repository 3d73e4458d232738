"""The double as tests use it: a process to start, prepare, disturb, inspect and stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from tests.loopback.counters import Counters
from tests.loopback.faults import Action, Fault
from tests.loopback.hub import Transfer

__all__ = ["Commit", "Counters", "LoopbackHub"]

_ROOT = Path(__file__).parents[2]
_FOREIGN = ("HF_", "HUGGING", "ACTIONS_", "GITHUB_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

# No proxy stands between processes of one machine.
_opener = build_opener(ProxyHandler({}))


@dataclass(frozen=True)
class Commit:
    """A commit in the history of a repository."""

    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: datetime


class LoopbackHub:
    """A running double; use it as a context manager, or call `stop`.

    `root` is an empty folder for what it stores. `part_size` is that of LFS multipart in bytes, and
    `page_size` the number of entries in a page of a tree.

    Tokens: `hf_writer` (user `me`, member of `acme`), `hf_reader` (the same user, read-only),
    `hf_other` (`someone-else`) and `hf_expired`.
    """

    def __init__(
        self,
        root: Path,
        transfer: Transfer = "lfs",
        *,
        part_size: int = 65_536,
        page_size: int = 1000,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.transfer = transfer
        command = [sys.executable, "-m", "tests.loopback", "--until-stdin-closes"]
        command += ["--root", str(root), "--transfer", transfer]
        command += ["--part-size", str(part_size), "--page-size", str(page_size)]
        environment = _without_foreign(os.environ)
        environment |= {"HF_HOME": str(root / "home"), "PYTHONPATH": str(_ROOT)}
        self._log = root / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The double did not start:\n{self._log.read_text()}")
        self.endpoint: str = json.loads(line)["endpoint"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process; raises RuntimeError if a request met a defect of the double itself."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        log = self._log.read_text()
        if "Traceback" in log:
            raise RuntimeError(f"The double failed on a request:\n{log}")

    def environment(self, home: Path, token: str | None = "hf_writer") -> dict[str, str]:
        """The environment for a client whose HF_HOME is `home`, without token if that is None.

        It is this process's, without its settings for the Hub, GitHub Actions and proxies. Clients
        choose Xet by themselves, so that it is off unless the double speaks it.
        """
        environment = _without_foreign(os.environ)
        environment |= {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "*",
        }
        if self.transfer == "xet":
            # Repetitions after faults needn't take seconds, and telemetry isn't served.
            environment |= {
                "HF_XET_CLIENT_RETRY_BASE_DELAY": "50ms",
                "HF_XET_TELEMETRY_ENABLED": "false",
            }
        else:
            environment["HF_HUB_DISABLE_XET"] = "1"
        if token is not None:
            environment["HF_TOKEN"] = token
        return environment

    def run(self, script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run Python code as a client in a process of its own; see `environment`."""
        return subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def oidc_environment(self, home: Path, repo: str) -> dict[str, str]:
        """The environment of a job on GitHub with `id-token: write`, publishing to a repository.

        The repository has to exist and to trust the job's; see `trust`.
        """
        return self.environment(home, token=None) | {
            "GITHUB_ACTIONS": "true",
            "HF_OIDC_RESOURCE": repo,
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.endpoint}/_github/id-token",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
        }

    def fault(
        self,
        action: Action,
        *,
        method: str = ".*",
        path: str = "",
        times: int | None = 1,
        skip: int = 0,
    ) -> None:
        """Let requests meet an action of `tests.loopback.faults`.

        `method` is a regular expression for the whole method, and `path` one to be found in the
        path (without query). The first `skip` matches pass, the next `times` (all, if None) don't.
        """
        fault = Fault(action=action, method=method, path=path, times=times, skip=skip)
        self._call("POST", "faults", fault.model_dump())

    def faults(self) -> list[Fault]:
        """All faults asked for, each with the number of its `hits`."""
        return [Fault.model_validate(fault) for fault in self._call("GET", "faults")]

    def clear_faults(self) -> None:
        """Forget all faults; a token that expired by one is valid again."""
        self._call("DELETE", "faults")

    def counters(self) -> Counters:
        return Counters.model_validate(self._call("GET", "counters"))

    def reset_counters(self) -> None:
        self._call("DELETE", "counters")

    def seed(
        self,
        repo: str,
        folder: Path,
        *,
        private: bool = False,
        gated: bool = False,
        granted: tuple[str, ...] = (),
        on_xet: bool = True,
    ) -> str:
        """Make a repository of a local folder, and give the id of its commit.

        `granted` are the users with access to a gated one. On a double that speaks Xet large files
        are on Xet unless `on_xet` is false; the counters then start anew.
        """
        body = {
            "repo": repo,
            "folder": str(folder),
            "private": private,
            "gated": gated,
            "granted": list(granted),
            "on_xet": on_xet,
        }
        oid: str = self._call("POST", "seed", body)["oid"]
        return oid

    def commit_by_other(
        self,
        repo: str,
        path: str = "notes.md",
        content: str = "A change by somebody else.\n",
        *,
        revision: str = "main",
        title: str = "Update notes.md",
        author: str = "someone-else",
    ) -> str:
        """Commit a regular file as somebody else, and give the commit's id."""
        body = {
            "repo": repo,
            "revision": revision,
            "path": path,
            "content": content,
            "title": title,
            "author": author,
        }
        oid: str = self._call("POST", "commit", body)["oid"]
        return oid

    def tag_by_other(self, repo: str, tag: str, revision: str = "main") -> None:
        """Tag a revision, whoever may."""
        self._call("POST", "tag", {"repo": repo, "tag": tag, "revision": revision})

    def trust(self, repo: str, github_repository: str = "me/releases") -> None:
        """Let jobs of a GitHub repository publish to a repository; default is who they are here."""
        self._call("POST", "publisher", {"repo": repo, "github_repository": github_repository})

    def history(self, repo: str, revision: str = "main") -> list[Commit]:
        """The commits up to a revision, the newest first."""
        rows = self._call("GET", "history", repo=repo, revision=revision)
        return [Commit(**row | {"date": datetime.fromisoformat(row["date"])}) for row in rows]

    def tags(self, repo: str) -> dict[str, str]:
        """The commit ids of all tags."""
        tags: dict[str, str] = self._call("GET", "tags", repo=repo)
        return tags

    def files(self, repo: str, revision: str = "main") -> dict[str, str]:
        """The SHA-256 of every file at a revision, by path, taken from the stored bytes."""
        files: dict[str, str] = self._call("GET", "files", repo=repo, revision=revision)
        return files

    def run_in_jobs(self, script: str | None) -> None:
        """Let jobs run a shell script, with their command as its arguments; None ends that."""
        self._call("POST", "job-script", {"script": script})

    def jobs(self) -> list[dict[str, Any]]:
        """The specification of every job that was started, with `stage`, `message` and `log`."""
        found: list[dict[str, Any]] = self._call("GET", "jobs")
        return found

    def bucket(self, bucket: str) -> dict[str, str]:
        """The content of every file of a bucket as text, by path."""
        files: dict[str, str] = self._call("GET", "bucket", bucket=bucket)
        return files

    def _call(self, method: str, what: str, body: Any = None, **query: str) -> Any:
        url = f"{self.endpoint}/_admin/{what}?{urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(url, data, headers, method=method)
        try:
            with _opener.open(request) as response:
                return json.load(response)
        except HTTPError as error:
            raise RuntimeError(f"{method} {url}: {error.read().decode()}") from error


def _without_foreign(environment: os._Environ[str]) -> dict[str, str]:
    return {
        key: value
        for key, value in environment.items()
        if not key.startswith(_FOREIGN) and key.upper() not in _PROXIES
    }
