"""The tutorial's commands do what it says, one after the other, on the real model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hubsplice.checkpoint.companions import CARD
from tests.loopback.client import LoopbackHub

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")

# What a test has instead: an environment, the model, a token, and the tests of vLLM.
NOT_RUN = ("make venv", "make model", "hf auth login", "vllm serve")


def commands() -> Iterator[str]:
    for block in re.findall(r"^```sh\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()


def test_its_recipe_is_that_of_the_example() -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
    example = yaml.safe_load((ROOT / "examples" / "recipe.yaml").read_text(encoding="utf-8"))
    assert yaml.safe_load(shown).items() <= example.items()


@pytest.mark.slow
def test_its_commands(smollm2: Path, hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / smollm2.name).symlink_to(smollm2)
    environment = hub.environment(tmp_path / "home", "hf_writer") | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    run = [command for command in commands() if not command.startswith(NOT_RUN)]
    assert len(run) >= 6
    for command in run:
        done = subprocess.run(
            ["bash", "-c", command.replace("YOU/", "me/")],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    card = (tmp_path / "my-model" / CARD).read_text(encoding="utf-8")
    assert "What is a computer?" in card
    assert "perplexity" in card
