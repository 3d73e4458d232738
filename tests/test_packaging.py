"""The wheel, installed away from the checkout, is complete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hubsplice import __version__
from hubsplice.checkpoint.manifest import write_manifest
from tests.card.examples import manifest

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel built from the checkout is installed into."""
    folder = tmp_path_factory.mktemp("wheel")
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, CHECKOUT],
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    return target


def run_installed(installed: Path, folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    result = subprocess.run(
        [installed / "bin" / "hubsplice", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


def names_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_is_what_runs(installed: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import hubsplice; print(hubsplice.__file__)"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(result.stdout.strip()).parent == installed / "hubsplice"


def test_the_wheel_holds_the_templates_types_and_licence(installed: Path) -> None:
    templates = names_below(CHECKOUT / "templates")
    assert "release/release.yml.j2" in templates
    assert names_below(installed / "hubsplice/templates") == templates
    assert (installed / "hubsplice/py.typed").is_file()
    (metadata,) = installed.glob("hubsplice-*.dist-info")
    assert metadata.name == f"hubsplice-{__version__}.dist-info"
    assert (metadata / "licenses/LICENSE").is_file()
    # Nothing else of the checkout is installed beside the package.
    assert not [path for path in ("tests", "docs", "examples") if (installed / path).exists()]


@pytest.mark.parametrize("name", ["hubsplice", "hf-hubsplice"])
def test_the_command_is_there_under_both_its_names(
    installed: Path, tmp_path: Path, name: str
) -> None:
    result = subprocess.run(
        [installed / "bin" / name, "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"Usage: {name} " in result.stdout
    assert "Exit codes" in result.stdout


def test_a_release_repository_can_be_made_outside_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    run_installed(installed, tmp_path, "init", "--workflow", "--repo-id", "me/edited")
    assert "hubsplice/hubsplice" in (tmp_path / ".github/workflows/release.yml").read_text("utf-8")


def test_the_installed_commands_work_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert "Exit codes" in run_installed(installed, tmp_path, "--help")
    assert "ablate" in run_installed(installed, tmp_path, "edits")
    run_installed(installed, tmp_path, "init")
    starter = (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    assert "hubsplice check recipe.yaml" in starter
    (tmp_path / "model").mkdir()
    write_manifest(manifest(), tmp_path / "model")
    assert run_installed(installed, tmp_path, "card", "model").strip() == "model/README.md"
    assert "not measured" in (tmp_path / "model/README.md").read_text(encoding="utf-8")
