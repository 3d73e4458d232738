"""hubsplice as a Hugging Face Job: the request, its start, its log, and what came of it."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from huggingface_hub import HfApi, JobInfo, JobStage
from huggingface_hub._jobs_api import DEFAULT_UV_IMAGE
from huggingface_hub.errors import HfHubHTTPError

from hubsplice.errors import HubspliceError, JobError, RecipeError, unknown_name
from hubsplice.files.space import readable_size
from hubsplice.hub.failures import explained_errors, retried
from hubsplice.hub.job_inputs import MOUNT, RECIPE, JobInputs, jobs_bucket, upload_inputs
from hubsplice.rendering.content import Part, Table
from hubsplice.rendering.rendered import Rendered

_SECONDS_BETWEEN_LOOKS = 2.0
_TIMEOUT = re.compile(r"\d+(\.\d+)?[smhd]?")
_EXIT_CODE = re.compile(r"exit code:? (\d+)")
_KILLED = 137


@dataclass(frozen=True)
class Machine:
    """A kind of machine that jobs run on.

    Attributes:
        flavor: its name.
        about: processor, memory and GPU, in words.
        price: in dollars, by what time; in words.
    """

    flavor: str
    about: str
    price: str


@dataclass(frozen=True, repr=False)
class JobRequest(Rendered):
    """A job that publishes a recipe.

    Attributes:
        arguments: those of `hubsplice publish`, behind the recipe.
        requirement: what is installed, as pip names it.
        machine: where it runs.
        timeout: when it is ended, such as `6h`.
        namespace: who runs it, and pays for it.
        repo_id: where the result goes.
        inputs: what it needs of this machine.
        environment: variables that are no secrets.
        token: the secret that it reads and writes repositories with.
    """

    arguments: tuple[str, ...]
    requirement: str
    machine: Machine
    timeout: str
    namespace: str
    repo_id: str
    inputs: JobInputs
    environment: Mapping[str, str]
    token: str | None = field(repr=False)

    @property
    def command(self) -> list[str]:
        """What the job runs."""
        installed = ["uv", "run", "--with", self.requirement]
        return [*installed, "hubsplice", "publish", f"{MOUNT}/{RECIPE}", *self.arguments]

    @property
    def bucket(self) -> str:
        """Where the inputs travel."""
        return jobs_bucket(self.namespace)

    def as_json(self) -> dict[str, Any]:
        """What is sent, for machines; of secrets the names."""
        return {
            "command": self.command,
            "flavor": self.machine.flavor,
            "machine": self.machine.about,
            "price": self.machine.price,
            "timeout": self.timeout,
            "namespace": self.namespace,
            "repo_id": self.repo_id,
            "inputs": {
                "bucket": self.bucket,
                "folder": self.inputs.folder,
                "bytes": self.inputs.size,
                "files": [RECIPE, *self.inputs.files],
            },
            "environment": dict(self.environment),
            "secrets": ["HF_TOKEN"],
        }

    def content(self) -> Iterable[Part]:
        """What would be sent."""
        yield Table.of_text(("", ""), tuple(self._rows()), "a Hugging Face Job")

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "command", shlex.join(self.command)
        yield "machine", f"{self.machine.flavor}: {self.machine.about}, {self.machine.price}"
        yield "ended after", self.timeout
        yield "runs as", self.namespace
        yield "result", self.repo_id
        yield "inputs", f"{readable_size(self.inputs.size)} in {self.bucket}/{self.inputs.folder}"
        yield "", RECIPE
        for name, path in self.inputs.files.items():
            yield "", f"{name}, from {path}"
        for name, value in self.environment.items():
            yield "variable", f"{name}={value}"
        yield "secret", "HF_TOKEN"


def find_machine(api: HfApi, flavor: str | None) -> Machine:
    """The machine of a flavor.

    Raises:
        RecipeError: the Hub has none of that name.
        HubError: the Hub can't say.
    """
    with explained_errors("jobs"):
        found = {machine.name: machine for machine in retried(api.list_jobs_hardware)}
    if flavor is None:
        raise RecipeError(f"--flavor: missing; the Hub has {', '.join(sorted(found))}")
    if flavor not in found:
        raise RecipeError(unknown_name("--flavor", flavor, found))
    machine = found[flavor]
    about = f"{machine.cpu}, {machine.ram}"
    if machine.accelerator is not None:
        gpu = machine.accelerator
        about += f", {gpu.quantity} × {gpu.model} of {gpu.vram}"
    if machine.unit_label == "minute":
        price = f"${machine.unit_cost_usd * 60:.2f} an hour"
    else:
        price = f"${machine.unit_cost_usd:g} a {machine.unit_label}"
    return Machine(flavor, about, price)


def require_timeout(timeout: str) -> None:
    """Raise `RecipeError` for what is no length of time, as jobs are given it."""
    if not _TIMEOUT.fullmatch(timeout) or not float(timeout.rstrip("smhd")):
        raise RecipeError(
            f"--timeout: found {timeout!r}, expected a number with s, m, h or d, such as 6h"
        )


def start_job(api: HfApi, request: JobRequest) -> JobInfo:
    """Send the inputs, and start the job.

    Raises:
        HubError: the Hub refuses, or can't be reached.
    """
    with explained_errors(request.namespace):
        volume = upload_inputs(api, request.inputs, request.bucket)
        # What run_uv_job sends; but that takes every argument that happens to be the name of a
        # file here for one to upload.
        return api.run_job(
            image=DEFAULT_UV_IMAGE,
            command=request.command,
            env=dict(request.environment),
            secrets={"HF_TOKEN": request.token},
            flavor=request.machine.flavor,
            timeout=request.timeout,
            name=f"hubsplice-{request.inputs.folder.rpartition('/')[2]}",
            volumes=[volume],
            namespace=request.namespace,
        )


def follow_job(api: HfApi, job: JobInfo, on_line: Callable[[str], None]) -> None:
    """Show what a job says until it ends.

    Raises:
        JobError: it failed or was cancelled; its exit code is the job's, where the Hub says it.
        HubError: the Hub can't be asked any longer; the job goes on.
    """
    who = job.owner.name
    try:
        with explained_errors(job.url):
            _wait_for_machine(api, job, on_line)
            shown = 0
            for line in api.fetch_job_logs(job_id=job.id, namespace=who, follow=True):
                on_line(line)
                shown += 1
            ended = api.wait_for_job(job.id, namespace=who)
            # The client does not ask again where the connection breaks just before the end.
            with suppress(HfHubHTTPError):
                log = api.fetch_job_logs(job_id=job.id, namespace=who)
                for line in islice(log, shown, None):
                    on_line(line)
    except HubspliceError as error:
        raise type(error)(f"{error}\nThe job may go on. {how_to_go_on(job)}") from None
    message = ended.status.message
    said = f": {message}" if message else ""
    if ended.status.stage == JobStage.COMPLETED:
        return
    if ended.status.stage != JobStage.ERROR:
        stage = str(JobStage(ended.status.stage).value).lower()
        raise JobError(f"the job was {stage}{said}; its log is at {job.url}")
    code = _EXIT_CODE.search(message or "")
    exit_code = int(code[1]) if code is not None else JobError.exit_code
    hint = ""
    if exit_code == _KILLED:
        hint = "; it may have needed more memory: take another flavor"
    raise JobError(f"the job failed{said}{hint}; its log is at {job.url}", exit_code)


def how_to_go_on(job: JobInfo) -> str:
    """The commands that follow or cancel a job."""
    name = f"{job.owner.name}/{job.id}"
    return (
        f"Follow it at {job.url} or with `hf jobs logs -f {name}`; cancel it with "
        f"`hf jobs cancel {name}`."
    )


def _wait_for_machine(api: HfApi, job: JobInfo, on_line: Callable[[str], None]) -> None:
    """Until there is a log; says why it takes time as often as the Hub says something else."""
    shown = None
    state = job
    while state.status.stage == JobStage.SCHEDULING:
        message = state.status.message or "waiting for a machine"
        if message != shown:
            on_line(message)
            shown = message
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        state = retried(lambda: api.inspect_job(job_id=job.id, namespace=job.owner.name))
