"""A release repository, a Hub, and a way to run the action in the one against the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.actions.runner import Run, run_action
from tests.loopback.client import LoopbackHub

CHECKOUT = Path(__file__).parents[2]
ACTION = CHECKOUT / ".github/actions/publish"
# The environment of the tests is installed already, and an installation needs a registry; what the
# step would run is tested by itself.
INSTALLED = "Install hubsplice"

BASE = "acme/tiny-base"
TARGET = "me/edited"
RECIPE = f"""
base_model: {BASE}
splices: [{{after_layer: 1}}]
calibration: {{tokens: 256, sequence_length: 64}}
fidelity: {{tokens: 256, sequence_length: 64}}
card: {{prompts: []}}
publish: {{repo_id: {TARGET}}}
"""
# Nothing is below this ratio, not even a splice that changes nothing.
UNREACHABLE = "0.0000001"


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the commands that the install step leaves on the PATH."""
    folder = tmp_path_factory.mktemp("commands")
    lines = {"python": "", "hubsplice": " -m hubsplice"}
    for name, module in lines.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def base(shared_tiny_llama: Callable[..., Path]) -> Path:
    folder = shared_tiny_llama(dtype="bfloat16", name="of-action-tests")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\nA base.\n")
    return folder


@pytest.fixture
def hub(tmp_path: Path, base: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path / "hub") as running:
        running.seed(BASE, base)
        yield running


@dataclass
class Repository:
    """A release repository, checked out on a runner."""

    workspace: Path
    scratch: Path
    commands: Path
    hub: LoopbackHub
    uses: int = 0

    def run(self, inputs: Mapping[str, str], job: Mapping[str, str] | None = None) -> Run:
        """Use the action in a new job on this runner, with what `job` adds to its environment.

        It has no token but what the inputs or `job` give.
        """
        self.uses += 1
        environment = self.hub.environment(self.scratch / "home", token=None)
        environment["PATH"] = f"{self.commands}{os.pathsep}{environment['PATH']}"
        environment["PYTHONPATH"] = str(CHECKOUT)
        environment["OMP_NUM_THREADS"] = "1"
        return run_action(
            ACTION,
            inputs,
            workspace=self.workspace,
            scratch=self.scratch / f"job-{self.uses}",
            environment=environment | dict(job or {}),
            leave_out=frozenset({INSTALLED}),
        )


@pytest.fixture
def repository(tmp_path: Path, commands: Path, hub: LoopbackHub) -> Repository:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return Repository(workspace, tmp_path / "runner", commands, hub)
