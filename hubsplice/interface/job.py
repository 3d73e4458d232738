"""Building and publishing as a Hugging Face Job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

from hubsplice.errors import RecipeError
from hubsplice.files.plain import is_folder
from hubsplice.interface.job_options import JobOptions
from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.publishing import Publishing, PublishOptions
from hubsplice.interface.sources import AnyPath, RecipeSource, as_path

if TYPE_CHECKING:
    from huggingface_hub import HfApi, JobInfo

    from hubsplice.hub.job import JobRequest


@dataclass(frozen=True, eq=False)
class PublishingJob:
    """A job that can be started: recipe, repository and machine are as they have to be.

    Attributes:
        api: the Hub.
        request: what is sent.
        warnings: of the recipe.
        options: how the result is published.
    """

    api: HfApi
    request: JobRequest
    warnings: tuple[str, ...]
    options: PublishOptions

    @staticmethod
    def open(
        source: RecipeSource,
        options: PublishOptions,
        job: JobOptions,
        progress: ProgressChoice,
    ) -> PublishingJob:
        """Check everything that can be checked before a machine is paid for.

        Raises:
            HubspliceError: as `check` and `publish` raise; RecipeError for a built folder.
        """
        if isinstance(source, str | PathLike) and is_folder(as_path(source)):
            raise RecipeError(f"{source}: a job takes a recipe; publish a folder without --on")
        publishing = Publishing.open(source, options, progress)
        from huggingface_hub import constants, get_token

        from hubsplice.compiling.plan import make_plan
        from hubsplice.hub.failures import explained_errors
        from hubsplice.hub.job import JobRequest, find_machine, require_timeout
        from hubsplice.hub.job_inputs import job_inputs

        api = publishing.api
        require_timeout(job.timeout)
        machine = find_machine(api, job.flavor)
        plan = make_plan(publishing.recipe)
        token = get_token()
        namespace = job.namespace
        if namespace is None:
            with explained_errors("jobs"):
                namespace = str(api.whoami()["name"]) if token is not None else "you"
        with reporting(progress) as report:
            inputs = job_inputs(
                plan.recipe, lambda done, total: report("reading inputs", done, total)
            )
        endpoint = constants.ENDPOINT
        elsewhere = endpoint != constants._HF_DEFAULT_ENDPOINT
        request = JobRequest(
            arguments=tuple(options.arguments(publishing.target.repo_id)),
            requirement=job.requirement,
            machine=machine,
            timeout=job.timeout,
            namespace=namespace,
            repo_id=publishing.target.repo_id,
            inputs=inputs,
            environment={"HF_ENDPOINT": endpoint} if elsewhere else {},
            token=token,
        )
        return PublishingJob(api, request, plan.warnings, options)

    def start(self, progress: ProgressChoice) -> JobInfo:
        """Send the inputs, and start the job."""
        from hubsplice.hub.job import start_job

        with reporting(progress):
            return start_job(self.api, self.request)

    def follow(self, job: JobInfo, on_line: Callable[[str], None]) -> str | None:
        """Show a job's log until it ends; gives the commit that holds the result.

        Of a pull request there is none on main, and None is given.

        Raises:
            JobError: the job failed, or was cancelled.
        """
        from hubsplice.hub.failures import explained_errors
        from hubsplice.hub.job import follow_job
        from hubsplice.hub.repository import Repository

        follow_job(self.api, job, on_line)
        if self.options.pull_request:
            return None
        with explained_errors(self.request.repo_id):
            return Repository(self.api, self.request.repo_id).head()

    def download(self, commit: str, output: AnyPath, progress: ProgressChoice) -> None:
        """Write the result into a new folder, which appears whole or not at all."""
        import shutil

        from hubsplice.files.staging import staged_directory
        from hubsplice.hub.built import open_built
        from hubsplice.hub.failures import explained_errors

        repo_id = self.request.repo_id
        with reporting(progress) as report, staged_directory(as_path(output)) as folder:
            with explained_errors(repo_id):
                self.api.snapshot_download(repo_id, revision=commit, local_dir=folder)
            shutil.rmtree(folder / ".cache", ignore_errors=True)
            open_built(
                folder,
                require_fidelity=None,
                allow_failed=True,
                allow_misfit=True,
                on_read=lambda done, total: report("verifying", done, total),
            )
