"""A release repository, a Hub, and a way to run the action in the one against the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.actions.forked import ForkedCommands
from tests.actions.runner import Run, run_action
from tests.loopback.client import LoopbackHub

CHECKOUT = Path(__file__).parents[2]
ACTION = CHECKOUT / ".github/actions/publish"
# The environment of the tests is installed already, and an installation needs a registry; what the
# step would run is tested by itself.
INSTALLED = "Install hubsplice"

BASE = "acme/tiny-base"
RECIPE = f"""
base_model: {BASE}
splices: [{{after_layer: 1}}]
calibration: {{tokens: 256, sequence_length: 64}}
fidelity: {{tokens: 256, sequence_length: 64}}
card: {{prompts: []}}
publish: {{repo_id: TARGET}}
"""
# Nothing is below this ratio, not even a splice that changes nothing.
UNREACHABLE = "0.0000001"


@pytest.fixture(scope="module")
def base(shared_tiny_llama: Callable[..., Path]) -> Path:
    folder = shared_tiny_llama(dtype="bfloat16", name="of-action-tests")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\nA base.\n")
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[LoopbackHub]:
    """A Hub for a whole module: tests take repositories of their own."""
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as running:
        running.seed(BASE, base)
        yield running


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory, hub: LoopbackHub
) -> Iterator[dict[str, str]]:
    """That of a job without a token, with the commands that the install step leaves on the PATH."""
    made = hub.environment(tmp_path_factory.mktemp("home"), token=None)
    made |= {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    folder = tmp_path_factory.mktemp("commands")
    with ForkedCommands(folder, made):
        yield made | {"PATH": f"{folder}{os.pathsep}{made['PATH']}"}


@dataclass
class Repository:
    """A release repository, checked out on a runner; `target` is what its recipe publishes to."""

    workspace: Path
    scratch: Path
    environment: Mapping[str, str]
    hub: LoopbackHub
    target: str
    uses: int = 0

    def run(self, inputs: Mapping[str, str], job: Mapping[str, str] | None = None) -> Run:
        """Use the action in a new job on this runner, with what `job` adds to its environment.

        It has no token but what the inputs or `job` give.
        """
        self.uses += 1
        return run_action(
            ACTION,
            inputs,
            workspace=self.workspace,
            scratch=self.scratch / f"job-{self.uses}",
            environment={**self.environment, **(job or {})},
            leave_out=frozenset({INSTALLED}),
        )


_number = count(1)


@pytest.fixture
def repository(tmp_path: Path, environment: dict[str, str], hub: LoopbackHub) -> Repository:
    workspace, target = tmp_path / "workspace", f"me/edited-{next(_number)}"
    workspace.mkdir()
    recipe = RECIPE.replace("TARGET", target)
    (workspace / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return Repository(workspace, tmp_path / "runner", environment, hub, target)
