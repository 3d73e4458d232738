"""Building and publishing as a job of the loopback Hub, which really runs the command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hubsplice.errors import RecipeError
from hubsplice.hub.job import JobRequest, Machine
from hubsplice.hub.job_inputs import JobInputs, job_inputs
from hubsplice.recipe.reading import load_recipe, portable
from tests.conftest import Outcome
from tests.hub.forking import ROOT, Forker
from tests.loopback.client import LoopbackHub
from tests.loopback.faults import Drop, Status
from tests.loopback.session import ClientSession

RECIPE = """
base_model: me/base
splices:
  - after_layer: 1
    edits: [{kind: steer, vector: {path: vectors/v.safetensors}, strength: 2.0}]
calibration: {tokens: 256, sequence_length: 64, dataset: text.txt}
fidelity: {tokens: 512, sequence_length: 64}
"""
ON = ("--on", "hf-jobs", "--flavor", "a10g-small")
TOKEN = "hf_writer"

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def jobs_hub(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path_factory.mktemp("hub"), "xet") as hub:
        hub.seed("me/base", base)
        yield hub


@pytest.fixture
def recipe(tmp_path: Path, base: Path) -> Path:
    """A recipe with two local files beside it."""
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors/v.safetensors").write_bytes(
        (base.parent / "vector.safetensors").read_bytes()
    )
    text = "The weather was fine, and nobody minded the wind from the sea. "
    (tmp_path / "text.txt").write_text(text * 60)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def run(jobs_hub: LoopbackHub, forker: Forker, tmp_path: Path, recipe: Path) -> Iterator[Run]:
    """The command line as a process of its own; the token is never shown."""

    def invoke(*arguments: str | Path, token: str | None = TOKEN) -> Outcome:
        environment = jobs_hub.environment(tmp_path / "home", token) | {"COLUMNS": "200"}
        done = forker.run([*map(str, arguments)], environment, tmp_path)
        assert TOKEN not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    yield invoke
    jobs_hub.run_in_jobs(None)
    jobs_hub.clear_faults()


def test_a_job_builds_and_stores_the_checkpoint_and_it_comes_back(
    run: Run, jobs_hub: LoopbackHub, tmp_path: Path
) -> None:
    done = run("build", "recipe.yaml", *ON, "--repo-id", "me/stored", "-o", "out", "--json")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert answer["request"]["secrets"] == ["HF_TOKEN"]
    assert answer["request"]["inputs"]["files"][0] == "recipe"
    history = jobs_hub.history("me/stored")
    assert answer["commit"] == history[0].oid
    assert answer["url"] == f"{jobs_hub.endpoint}/me/stored/commit/{history[0].oid}"

    job = jobs_hub.jobs()[-1]
    assert job["stage"] == "COMPLETED"
    assert job["flavor"] == "a10g-small"
    assert job["timeoutSeconds"] == 6 * 3600
    assert job["secrets"] == {"HF_TOKEN": TOKEN}
    assert TOKEN not in json.dumps(job["command"]) + json.dumps(job["environment"])
    assert "calibrating layer 1 in float32" in done.err
    assert "times the noise floor" in done.err

    # The base is named, and the local files lie beside the recipe in a private bucket.
    folder = job["volumes"][0]["path"]
    bucket = jobs_hub.bucket("me/jobs-artifacts")
    assert [name for name in bucket if name.startswith(folder)] == [
        f"{folder}/recipe",
        f"{folder}/inputs/0/v.safetensors",
        f"{folder}/inputs/1/text.txt",
    ]
    # What the checkpoint says of its recipe is what a build here says.
    carried = (tmp_path / "out/reproduce/recipe.yaml").read_text()
    assert "path: v.safetensors" in carried
    assert "dataset: text.txt" in carried
    assert not (tmp_path / "out/.cache").exists()
    assert run("inspect", "out").code == 0


def test_a_dry_run_shows_the_command_with_all_options_and_sends_nothing(
    run: Run, jobs_hub: LoopbackHub
) -> None:
    before = len(jobs_hub.jobs())
    jobs_hub.reset_counters()
    options = ("--tag", "v1", "--license", "mit", "--public", "--allow-misfit", "--replace")
    done = run(
        *("publish", "recipe.yaml", *ON, "--repo-id", "me/passed", *options, "--dry-run", "--json"),
        *("--require-fidelity", "2", "--timeout", "90m", "--install", "hubsplice @ file:///x"),
    )
    assert done.code == 0, done.err
    request = json.loads(done.out)["request"]
    assert request["timeout"] == "90m"
    assert request["command"] == [
        *("uv", "run", "--with", "hubsplice @ file:///x", "hubsplice", "publish"),
        *("/hubsplice/recipe", "--repo-id", "me/passed", "--tag", "v1", "--public"),
        *("--license", "mit", "--require-fidelity", "2.0", "--replace", "--allow-misfit"),
    ]
    assert jobs_hub.counters().count("POST", "/api/") == 0
    assert len(jobs_hub.jobs()) == before


def test_what_would_be_sent_in_a_table() -> None:
    request = JobRequest(
        arguments=("--repo-id", "me/x"),
        requirement="hubsplice",
        machine=Machine("a100-large", "12 vCPU, 142 GB", "$2.50 an hour"),
        timeout="6h",
        namespace="acme",
        repo_id="me/x",
        inputs=JobInputs("base_model: x\n", {"inputs/0/v": Path("/v")}, "hubsplice/0", 12_000),
        environment={},
        token=TOKEN,
    )
    shown = str(request)
    assert TOKEN not in shown + repr(request)
    for word in ("a100-large", "$2.50 an hour", "acme/jobs-artifacts/hubsplice/0", "HF_TOKEN"):
        assert word in shown
    assert "inputs/0/v, from /v" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("build", "recipe.yaml"), 2, "'--output' / '-o': missing"),
        (("build", "recipe.yaml", "--flavor", "t4"), 2, "--flavor: it is for jobs; add --on"),
        (("build", "recipe.yaml", "-o", "x", "--dry-run"), 2, "--dry-run: it is for jobs"),
        (("build", "recipe.yaml", *ON), 2, "--repo-id: missing"),
        (("build", "recipe.yaml", *ON, "--repo-id", "me/x", "--no-measure"), 2, "--no-measure"),
        (("publish", "recipe.yaml", "--on", "hf-jobs", "--repo-id", "me/x"), 2, "a100-large"),
        (("publish", "recipe.yaml", *ON[:3], "a100", "--repo-id", "me/x"), 2, "'a100-large'?"),
        (("publish", "recipe.yaml", *ON, "--repo-id", "me/x", "--timeout", "soon"), 2, "as 6h"),
        (("publish", "vectors", *ON, "--repo-id", "me/x"), 2, "a job takes a recipe"),
        (("publish", "recipe.yaml", *ON, "--repo-id", "me/base"), 8, "did not publish"),
    ],
)
def test_what_is_wrong_is_said_before_a_job_starts(
    run: Run, jobs_hub: LoopbackHub, arguments: tuple[str, ...], code: int, message: str
) -> None:
    before = len(jobs_hub.jobs())
    done = run(*arguments)
    assert done.code == code, done.err
    assert message in done.err
    assert len(jobs_hub.jobs()) == before


def test_a_mistake_in_the_recipe_costs_nothing(
    run: Run, jobs_hub: LoopbackHub, recipe: Path
) -> None:
    before = len(jobs_hub.jobs())
    recipe.write_text(RECIPE.replace("after_layer: 1", "after_layer: 99"))
    done = run("publish", "recipe.yaml", *ON, "--repo-id", "me/x")
    assert done.code == 2
    assert "99" in done.err
    assert len(jobs_hub.jobs()) == before


def start(hub: LoopbackHub, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hubsplice", *arguments],
        cwd=folder,
        env=hub.environment(folder / "home", TOKEN) | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def running(hub: LoopbackHub, process: subprocess.Popen[str], known: int) -> dict[str, Any]:
    """The job that the process has started, once it says something."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        jobs = hub.jobs()[known:]
        if jobs and len(jobs[0]["log"]) > 1:
            return jobs[0]
        time.sleep(0.1)
    raise AssertionError(f"no job was started: {process.communicate()}")


def test_an_interrupted_command_says_that_the_job_goes_on_and_how_to_cancel_it(
    jobs_hub: LoopbackHub, run: Run, tmp_path: Path
) -> None:
    known = len(jobs_hub.jobs())
    jobs_hub.run_in_jobs("echo begun; exec sleep 60")
    arguments = ("publish", "recipe.yaml", *ON, "--repo-id", "me/slow")
    process = start(jobs_hub, tmp_path, *arguments)
    job = running(jobs_hub, process, known)
    assert process.stderr is not None
    shown = [process.stderr.readline()]
    while "begun" not in shown[-1]:
        shown.append(process.stderr.readline())
        assert shown[-1], shown
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The job goes on, and so does what it costs." in err
    assert f"`hf jobs cancel me/{job['id']}`" in err
    assert jobs_hub.jobs()[known]["stage"] == "RUNNING"

    cancel = f"from huggingface_hub import HfApi; HfApi().cancel_job(job_id='{job['id']}')"
    environment = jobs_hub.environment(tmp_path / "home") | {"PATH": os.environ["PATH"]}
    assert jobs_hub.run(cancel, environment).returncode == 0
    assert jobs_hub.jobs()[known]["stage"] == "CANCELED"


# What follows needs the part of hubsplice that talks to the Hub, and no model.
FOLLOW = """
from huggingface_hub import HfApi
from hubsplice.errors import HubspliceError
from hubsplice.hub.job import JobRequest, Machine, follow_job, start_job
from hubsplice.hub.job_inputs import JobInputs
request = JobRequest(
    (), "hubsplice", Machine("cpu-basic", "", ""), "1h", "NAMESPACE", "me/x",
    JobInputs("base_model: x\\n", {}, "hubsplice/0", 1),
    {"HF_ENDPOINT": HfApi().endpoint}, "hf_writer",
)
lines = []
try:
    follow_job(HfApi(), start_job(HfApi(), request), lines.append)
    show([0, lines])
except HubspliceError as error:
    show([error.exit_code, lines, str(error)])
"""


@pytest.fixture(scope="module")
def session(
    jobs_hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClientSession]:
    with ClientSession(jobs_hub, tmp_path_factory.mktemp("home")) as session:
        yield session


@pytest.fixture
def follow(session: ClientSession, jobs_hub: LoopbackHub) -> Iterator[Callable[..., list[Any]]]:
    """Start and follow a job that runs a shell script; gives exit code, log and error."""

    def started(script: str, namespace: str = "me") -> list[Any]:
        jobs_hub.run_in_jobs(script)
        answer: list[Any] = session.run(FOLLOW.replace("NAMESPACE", namespace))
        return answer

    yield started
    jobs_hub.run_in_jobs(None)
    jobs_hub.clear_faults()


def test_the_log_of_a_job_in_its_order(follow: Callable[..., list[Any]]) -> None:
    code, lines = follow("for i in 1 2 3; do echo line $i; sleep 0.2; done; echo end >&2")
    assert code == 0
    assert lines[-4:] == ["line 1", "line 2", "line 3", "end"]


def test_the_exit_code_is_the_jobs(follow: Callable[..., list[Any]]) -> None:
    code, _, message = follow("exit 5")
    assert code == 5
    assert "the job failed: Job failed with exit code: 5. Reason: Error; its log is at" in message


def test_a_job_out_of_memory_says_so(follow: Callable[..., list[Any]]) -> None:
    code, _, message = follow("kill -9 $$")
    assert code == 137
    assert "it may have needed more memory: take another flavor" in message


def test_a_job_that_somebody_cancels(follow: Callable[..., list[Any]], tmp_path: Path) -> None:
    cancel = tmp_path / "cancel.py"
    cancel.write_text(
        "from huggingface_hub import HfApi\napi = HfApi()\n"
        "api.cancel_job(job_id=next(iter(api.list_jobs(namespace='me'))).id)\n"
    )
    code, _, message = follow(f"{sys.executable} {cancel}; sleep 60")
    assert code == 1
    assert "the job was canceled; its log is at http" in message


def test_a_connection_that_breaks_while_a_job_is_followed(
    follow: Callable[..., list[Any]], jobs_hub: LoopbackHub
) -> None:
    jobs_hub.fault(Drop(), path="/logs$")
    code, lines = follow("echo one; sleep 0.5; echo two")
    assert code == 0
    assert lines[-2:] == ["one", "two"]


def test_a_hub_that_does_not_answer_any_longer_is_no_failed_job(
    follow: Callable[..., list[Any]], jobs_hub: LoopbackHub
) -> None:
    jobs_hub.fault(Status(status=403), path="/logs$", times=None)
    code, _, message = follow("sleep 1")
    assert code == 7
    assert "The job may go on. Follow it at http" in message


def test_the_hub_refuses_to_start_a_job(
    follow: Callable[..., list[Any]], jobs_hub: LoopbackHub
) -> None:
    before = len(jobs_hub.jobs())
    jobs_hub.fault(Status(status=402), method="POST", path="/api/jobs/")
    code, _, message = follow("true")
    assert (code, "402 (Payment Required)" in message) == (7, True)
    assert follow("true", "someone-else")[0] == 7
    assert len(jobs_hub.jobs()) == before


def test_inputs_are_not_sent_to_a_public_bucket(
    follow: Callable[..., list[Any]], session: ClientSession
) -> None:
    create = "from huggingface_hub import HfApi; HfApi().create_bucket('acme/jobs-artifacts', "
    session.run(create + "private=False)")
    code, _, message = follow("true", "acme")
    assert code == 7
    assert "acme/jobs-artifacts: this bucket is public" in message


def inputs(recipe: Path) -> JobInputs:
    return job_inputs(load_recipe(recipe), lambda _done, _total: None)


def test_inputs_are_named_after_their_content(recipe: Path, tmp_path: Path) -> None:
    found = inputs(recipe)
    assert list(found.files) == ["inputs/0/v.safetensors", "inputs/1/text.txt"]
    other = shutil.copytree(recipe.parent, tmp_path / "elsewhere")
    assert inputs(other / "recipe.yaml").folder == found.folder
    (other / "text.txt").write_text("Other text. " * 200)
    assert inputs(other / "recipe.yaml").folder != found.folder
    (tmp_path / "sent").mkdir()
    for name, file in found.files.items():
        (tmp_path / "sent" / name).parent.mkdir(parents=True)
        shutil.copy(file, tmp_path / "sent" / name)
    (tmp_path / "sent/recipe").write_text(found.recipe)
    assert portable(load_recipe(tmp_path / "sent/recipe")) == portable(load_recipe(recipe))


def test_a_base_in_a_local_folder_goes_along_without_what_is_hidden(
    recipe: Path, base: Path, tmp_path: Path
) -> None:
    local = shutil.copytree(base, tmp_path / "my-base")
    (local / ".git").mkdir()
    (local / ".git/config").write_text("")
    recipe.write_text(RECIPE.replace("me/base", "./my-base"))
    found = inputs(recipe)
    assert "base_model: ./inputs/2/my-base" in found.recipe
    assert "inputs/2/my-base/config.json" in found.files
    assert not any("git" in name for name in found.files)
    assert found.size > sum(f.stat().st_size for f in local.glob("*.safetensors"))


def test_a_file_that_is_gone(recipe: Path) -> None:
    (recipe.parent / "text.txt").unlink()
    (recipe.parent / "vectors/v.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"v\.safetensors: cannot be read"):
        inputs(recipe)
