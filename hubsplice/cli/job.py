"""The options of commands that can run as a Hugging Face Job, and such a run on the terminal."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubsplice.errors import RecipeError
from hubsplice.interface.job_options import REQUIREMENT, TIMEOUT, JobOptions
from hubsplice.terminal import print_content, print_json, print_line, print_note, print_warning

if TYPE_CHECKING:
    from huggingface_hub import JobInfo

    from hubsplice.interface.job import PublishingJob
    from hubsplice.interface.publishing import PublishOptions


class Elsewhere(enum.StrEnum):
    """Where a command can run beside this machine."""

    HF_JOBS = "hf-jobs"


On = Annotated[
    Elsewhere | None,
    typer.Option(
        "--on",
        help="Run the command as a Hugging Face Job, on a machine that the Hub charges for.",
        show_default=False,
    ),
]
Flavor = Annotated[
    str | None,
    typer.Option(
        "--flavor",
        metavar="NAME",
        help="The job's machine, such as a100-large.",
        show_default=False,
    ),
]
Timeout = Annotated[
    str | None,
    typer.Option(
        "--timeout",
        metavar="TIME",
        help=f"End the job after that time, such as 90m or 6h.  [default: {TIMEOUT}]",
        show_default=False,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="OWNER",
        help="The user or organization that runs the job and pays for it.  [default: you]",
        show_default=False,
    ),
]
Install = Annotated[
    str | None,
    typer.Option(
        "--install",
        metavar="REQUIREMENT",
        help=f"What the job installs, as pip names it.  [default: {REQUIREMENT}]",
        show_default=False,
    ),
]


def job_options(
    on: Elsewhere | None,
    *,
    flavor: str | None,
    timeout: str | None,
    namespace: str | None,
    install: str | None,
) -> JobOptions | None:
    """How to run the job; None for a command that runs here.

    Raises:
        RecipeError: an option of jobs for a command that runs here.
    """
    given = {"flavor": flavor, "timeout": timeout, "namespace": namespace, "install": install}
    if on is None:
        for name, value in given.items():
            if value is not None:
                raise RecipeError(f"--{name}: it is for jobs; add --on {Elsewhere.HF_JOBS}")
        return None
    return JobOptions(flavor, timeout or TIMEOUT, namespace, install or REQUIREMENT)


def run_job(
    recipe: Path,
    options: PublishOptions,
    job_options: JobOptions,
    *,
    as_json: bool,
    output: Path | None = None,
) -> None:
    """Run a job to its end, or show what would be sent.

    Args:
        recipe: what is built and published.
        options: how the result is published.
        job_options: where it runs.
        as_json: print JSON on stdout; the log goes to stderr either way.
        output: a folder for the result, beside the repository.
    """
    from hubsplice.interface.job import PublishingJob

    publishing = PublishingJob.open(recipe, options, job_options, progress=True)
    request = publishing.request
    for warning in publishing.warnings:
        print_warning(warning)
    if options.dry_run:
        if as_json:
            print_json({"request": request.as_json()})
        else:
            print_content(request.content())
        return
    job = publishing.start(progress=True)
    print_note(f"the job has started: {job.url}")
    commit = _follow(publishing, job)
    if commit is not None and output is not None:
        publishing.download(commit, output, progress=True)
    url = f"{publishing.api.endpoint}/{request.repo_id}"
    if commit is not None:
        url += f"/commit/{commit}"
    if as_json:
        print_json(
            {
                "request": request.as_json(),
                "job": {"id": job.id, "url": job.url},
                "repo_id": request.repo_id,
                "commit": commit,
                "url": url,
                "folder": None if output is None else str(output),
            }
        )
        return
    print_line(f"the job has ended: {url}")
    if output is not None:
        print_line(str(output))
    print_line(f"verify it: hubsplice verify {request.repo_id}")


def _follow(publishing: PublishingJob, job: JobInfo) -> str | None:
    from hubsplice.hub.job import how_to_go_on

    try:
        return publishing.follow(job, print_note)
    except KeyboardInterrupt:
        print_note(f"The job goes on, and so does what it costs. {how_to_go_on(job)}")
        raise
