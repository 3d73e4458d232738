"""A published model, downloaded again: what differs from the build is found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hubsplice.checkpoint.manifest import write_manifest
from hubsplice.files.digest import digest_bytes
from tests.card.examples import manifest
from tests.loopback.client import LoopbackHub

TARGET = "me/edited"
FILES = {"config.json": b"{}", "reproduce/recipe.yaml": b"base_model: x\n"}


def write_model(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    write_manifest(
        manifest(files={name: digest_bytes(data) for name, data in files.items()}), folder
    )
    return folder


def altered(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"[]")


def without_a_file(folder: Path) -> None:
    (folder / "reproduce/recipe.yaml").unlink()


def with_another_manifest(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    write_model(folder, FILES | {"config.json": b"{ }"})


def alike(_folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (alike, 0, f"2 files of {TARGET} at "),
        (altered, 4, "config.json differs from what was built: sha256 "),
        (without_a_file, 4, "reproduce/recipe.yaml is missing"),
        (with_another_manifest, 4, "its splice.json lists other files than were built"),
    ],
)
def test_what_differs_from_the_build_is_found(
    tmp_path: Path, change: Callable[[Path], None], code: int, message: str
) -> None:
    built = write_model(tmp_path / "built", FILES)
    published = shutil.copytree(built, tmp_path / "published")
    change(published)
    state = tmp_path / "state"
    state.mkdir()
    with LoopbackHub(tmp_path / "hub") as hub:
        commit = hub.seed(TARGET, published)
        result = {"repo_id": TARGET, "outcome": "published", "commit": commit}
        (state / "result.json").write_text(json.dumps(result), encoding="utf-8")
        command = [sys.executable, "-m", "hubsplice.github_actions", "verify"]
        command += ["--repo-id", TARGET, "--folder", str(built), "--state", str(state)]
        done = subprocess.run(
            [*command, "--download", str(tmp_path / "download")],
            env=hub.environment(tmp_path / "home", token=None),
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == code, done.stderr
    assert message in (done.stderr if code else done.stdout)
