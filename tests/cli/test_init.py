"""`hubsplice init`: a starter recipe, and a repository that releases a model."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from hubsplice.errors import OutputError, RecipeError
from hubsplice.files.new_files import write_files
from hubsplice.github_actions.release_repository import release_repository
from hubsplice.recipe.reading import load_recipe
from hubsplice.recipe.starter import recipe_starter
from tests.conftest import Command

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ACTION = f"someone/hubsplice/.github/actions/publish@{COMMIT}"
FILES = {"recipe.yaml", ".github/workflows/release.yml", "README.md", ".gitignore"}
LINTERS = Path(sys.executable).parent


@pytest.fixture
def run(command: Command) -> Command:
    """Run the command in this process, in an empty folder."""
    return partial(command, "init")


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """zizmor's findings at its strictest that are about the files alone."""
    # Left to itself it colours what it prints wherever CI is set.
    command = [str(LINTERS / "zizmor"), "--color", "never", "--offline", "--no-progress"]
    return subprocess.run(
        [*command, "--persona", "pedantic", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_release_repository_names_its_target_everywhere(run: Command, tmp_path: Path) -> None:
    code, out, err = run("--workflow", "--repo-id", "me/edited", "--action", ACTION)
    assert (code, out) == (0, "")
    written = files(tmp_path)
    assert written.keys() == FILES
    assert all(name in err for name in FILES)
    assert load_recipe(tmp_path / "recipe.yaml").publish.repo_id == "me/edited"
    workflow = yaml.safe_load(written[".github/workflows/release.yml"])
    assert workflow["jobs"]["release"]["concurrency"]["group"] == "publish-me/edited"
    assert "https://huggingface.co/me/edited" in written["README.md"]
    assert not any("my-edited-model" in text for text in written.values())


def test_only_the_release_may_sign_in(run: Command, tmp_path: Path) -> None:
    run("--workflow", "--repo-id", "me/edited", "--action", ACTION)
    workflow = yaml.safe_load((tmp_path / ".github/workflows/release.yml").read_text("utf-8"))
    assert workflow["permissions"] == {}
    check, release = workflow["jobs"]["check"], workflow["jobs"]["release"]
    assert check["permissions"] == {"contents": "read"}
    assert "environment" not in check
    assert release["permissions"] == {"contents": "read", "id-token": "write"}
    assert release["environment"] == "huggingface"
    steps = {name: job["steps"][-1] for name, job in workflow["jobs"].items()}
    assert {step["uses"] for step in steps.values()} == {ACTION}
    assert steps["check"]["with"] == {"mode": "check", "recipe": "recipe.yaml"}
    assert steps["release"]["with"] == {
        "mode": "release",
        "recipe": "recipe.yaml",
        "tag": "${{ github.ref_name }}",
    }


def test_the_inputs_that_the_workflow_gives_are_those_of_the_action(
    run: Command, tmp_path: Path
) -> None:
    run("--workflow")
    workflow = yaml.safe_load((tmp_path / ".github/workflows/release.yml").read_text("utf-8"))
    action = yaml.safe_load(
        (Path(__file__).parents[2] / ".github/actions/publish/action.yml").read_text("utf-8")
    )
    for job in workflow["jobs"].values():
        assert job["steps"][-1]["with"].keys() <= action["inputs"].keys()


def test_the_release_repository_passes_the_linters(run: Command, tmp_path: Path) -> None:
    run("--workflow", "--repo-id", "me/edited", "--action", ACTION)
    result = lint(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    schema = [str(LINTERS / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows"]
    workflow = tmp_path / ".github/workflows/release.yml"
    subprocess.run([*schema, str(workflow)], check=True)


def test_the_linter_finds_an_action_that_is_not_pinned(run: Command, tmp_path: Path) -> None:
    run("--workflow")
    result = lint(tmp_path)
    assert result.returncode != 0
    # One in each job, and nothing else: what a release of hubsplice is called has no commit yet.
    assert result.stdout.count("unpinned-uses]") == 2
    assert "2 findings" in result.stdout
    assert "pin it to a commit" in (tmp_path / ".github/workflows/release.yml").read_text("utf-8")


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_is_written_where_one_file_exists(run: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine", encoding="utf-8")
    code, _, err = run("--workflow")
    assert code == 6
    assert name in err
    assert "--force" in err
    assert files(tmp_path) == {name: "mine"}
    assert run("--workflow", "--force")[0] == 0
    assert files(tmp_path).keys() == FILES
    assert "mine" not in files(tmp_path).values()


def test_a_folder_in_the_way_leaves_nothing_behind(run: Command, tmp_path: Path) -> None:
    (tmp_path / "README.md").mkdir()
    assert run("--workflow", "--force")[0] == 6
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_file_where_a_folder_belongs_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("a file", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written"):
        write_files({"a/c/one": "1", "b/two": "2"}, tmp_path, force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_folder_can_be_named(run: Command, tmp_path: Path) -> None:
    assert run("--workflow", "new/model-release")[0] == 0
    assert files(tmp_path / "new/model-release").keys() == FILES


def test_the_files_may_be_read_by_others(run: Command, tmp_path: Path) -> None:
    run("--workflow")
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in FILES} == {0o644}


@pytest.mark.parametrize("repo_id", ["name", "me/", "a/b/c", "me/x\nprivate: false", "me/ x", "{}"])
def test_a_malformed_repository_is_refused(repo_id: str) -> None:
    with pytest.raises(RecipeError, match="is not `owner/name`"):
        release_repository(repo_id, action=ACTION)
    with pytest.raises(RecipeError, match="is not `owner/name`"):
        recipe_starter("recipe.yaml", repo_id=repo_id)


@pytest.mark.parametrize("action", ["me/x", "me/x@", "me/x@v1\n  run: x", "me@v1", "me/x@v1 # no"])
def test_a_malformed_action_is_refused(action: str) -> None:
    with pytest.raises(RecipeError, match="is not `owner/repo/path@ref`"):
        release_repository("me/edited", action=action)


def test_a_recipe_alone_can_name_its_repository(run: Command, tmp_path: Path) -> None:
    assert run("mine.yaml", "--repo-id", "me/edited")[0] == 0
    assert files(tmp_path).keys() == {"mine.yaml"}
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert (recipe.publish.repo_id, recipe.publish.tag) == ("me/edited", None)
