"""What needs no Hub: installing, comparing a tag with a version, the action's page."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.actions.conftest import ACTION, CHECKOUT

REQUIRE_VERSION = CHECKOUT / ".github/scripts/require-version.sh"


@pytest.fixture
def installations(tmp_path: Path) -> Path:
    """A folder of commands of which `python` notes its arguments, one call a line."""
    for name, line in {
        "python": 'printf "%s|" "$@" >>"$CALLS"; echo >>"$CALLS"',
        "hubsplice": "echo hubsplice 0",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def installed(folder: Path, **inputs: str) -> list[list[str]]:
    """What the install step gives to pip, call by call."""
    environment = {
        "CALLS": str(folder / "calls"),
        "GITHUB_ACTION_PATH": str(ACTION),
        "INPUT_HUBSPLICE": "",
        "INPUT_TORCH": "torch",
        "INPUT_TORCH_INDEX_URL": "https://index.example/cpu",
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
    }
    subprocess.run(["bash", ACTION / "install.sh"], env=environment | inputs, check=True)
    calls = [line.split("|")[:-1] for line in (folder / "calls").read_text().splitlines()]
    assert all(call[:3] == ["-m", "pip", "install"] for call in calls)
    return [[part for part in call[3:] if part[:2] != "--" or "index" in part] for call in calls]


def test_pytorch_comes_from_its_index_and_hubsplice_from_beside_the_action(
    installations: Path,
) -> None:
    torch, hubsplice = installed(installations)
    assert torch == ["--index-url", "https://index.example/cpu", "torch"]
    assert Path(*hubsplice).resolve() == CHECKOUT


def test_requirements_are_one_word_each(installations: Path) -> None:
    torch, hubsplice = installed(
        installations,
        INPUT_HUBSPLICE="hubsplice @ git+https://host.example/x@v1",
        INPUT_TORCH="torch >= 2.6",
        INPUT_TORCH_INDEX_URL="",
    )
    assert torch == ["torch >= 2.6"]
    assert hubsplice == ["hubsplice @ git+https://host.example/x@v1"]


def test_pytorch_can_be_there_already(installations: Path) -> None:
    assert len(installed(installations, INPUT_TORCH="")) == 1


@pytest.mark.parametrize("script", sorted(ACTION.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_bash_that_stops_at_the_first_failure(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    assert "${{" not in text
    assert script.name == "lib.sh" or "\nset -euo pipefail\n" in text


@pytest.mark.parametrize(
    ("files", "fits"),
    [
        (["hubsplice-1.2.0-py3-none-any.whl", "hubsplice-1.2.0.tar.gz"], True),
        (["hubsplice-1.2.1-py3-none-any.whl", "hubsplice-1.2.1.tar.gz"], False),
        (["hubsplice-1.2.0-py3-none-any.whl"], False),
        (["hubsplice-1.2.0-py3-none-any.whl", "hubsplice-1.2.0.tar.gz", "other-1.whl"], False),
    ],
)
def test_a_release_has_the_version_of_its_tag(tmp_path: Path, files: list[str], fits: bool) -> None:
    for name in files:
        (tmp_path / name).touch()
    result = subprocess.run(
        [REQUIRE_VERSION, tmp_path, "v1.2.0"], capture_output=True, text=True, check=False
    )
    assert (result.returncode == 0) is fits
    assert result.stdout.startswith("::error") is not fits


def test_the_page_has_every_input_and_output() -> None:
    page = (CHECKOUT / "docs/actions.md").read_text(encoding="utf-8")
    action = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))
    table = set(re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\|([^|]*)\|", page, re.M))))
    assert action["inputs"].keys() <= table
    (outputs,) = re.findall(r"^Outputs: (.*?)\. ", page, re.M)
    assert set(re.findall(r"`([a-z-]+)`", outputs)) == action["outputs"].keys()
