"""The steps of `.github/actions/publish`, run for real against the loopback Hub.

Each run builds a model, which takes its time: a test tells a whole story.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hubsplice.checkpoint.manifest import read_manifest
from tests.actions.conftest import INSTALLED, UNREACHABLE, Repository
from tests.actions.runner import Run
from tests.loopback.client import LoopbackHub

TOKEN = "hf_writer"
EXPIRED = "hf_expired"
TAGGED = {"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v1.0"}
BRANCH = {"GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "main"}


def messages(run: Run, kind: str = "error") -> list[str]:
    return re.findall(rf"^::{kind} title=[^:]*::(.*)$", run.log, re.MULTILINE)


def ended(run: Run) -> tuple[str, int]:
    """The step that failed, and its exit code."""
    assert run.failed is not None, run.log
    return run.failed.name, run.failed.code


def everything_shown(run: Run) -> str:
    return run.log + run.summary + "".join(run.outputs.values())


def exists(hub: LoopbackHub, repo: str) -> bool:
    try:
        hub.history(repo)
    except RuntimeError:
        return False
    return True


def make_repository(hub: LoopbackHub, repo: str, folder: Path) -> None:
    """An empty repository, as its owner makes it on the Hub's pages."""
    folder.mkdir()
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    hub.seed(repo, folder)


def test_a_check_shows_fidelity_and_plan_and_writes_nothing(repository: Repository) -> None:
    run = repository.run({"mode": "check"}, BRANCH)
    assert run.failed is None, run.log
    assert run.ran == ["Read the inputs", "Build and measure", "Plan", "Report"]
    assert run.left_out == ["Set up Python", INSTALLED, "Cache downloads"]
    assert not exists(repository.hub, repository.target)

    assert run.summary.startswith(f"## `{repository.target}`: checked\n")
    assert f"### Fidelity\n\n**{run.outputs['verdict']}**" in run.summary
    assert re.search(r"\| precision +\| +ratio \(95%\)", run.summary)
    assert "### Plan" in run.summary
    assert "the repository does not exist yet" in run.summary
    assert "Licence: `apache-2.0`." in run.summary

    folder = Path(run.outputs["folder"])
    built = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert re.search(rf"\| created +\| +{len(built)} \|", run.summary)
    for name in built:
        assert re.search(rf"\| created +\| {re.escape(name)} ", run.summary.replace("\\", ""))
    size = sum((folder / name).stat().st_size for name in built)
    assert 0 < int(run.outputs["upload-bytes"]) <= size
    assert run.outputs["repo-id"] == repository.target
    assert (run.outputs["commit"], run.outputs["tag"]) == ("", "")


def test_a_tag_is_released_once(repository: Repository, tmp_path: Path) -> None:
    hub, target = repository.hub, repository.target
    make_repository(hub, target, tmp_path / "empty")
    hub.trust(target)
    before = hub.history(target)
    # What GitHub gives a job with `id-token: write`.
    github = {
        name: value
        for name, value in hub.oidc_environment(tmp_path, target).items()
        if name.startswith("ACTIONS_")
    }
    run = repository.run({"mode": "release"}, TAGGED | github)
    assert run.failed is None, run.log
    assert run.ran == [
        "Read the inputs",
        "Build and measure",
        "Publish",
        "Download again and compare",
        "Report",
    ]
    assert run.left_out == ["Set up Python", INSTALLED, "Restore downloads"]
    head, *rest = hub.history(target)
    assert rest == before
    assert hub.tags(target) == {"v1.0": head.oid}
    assert (run.outputs["commit"], run.outputs["tag"]) == (head.oid, "v1.0")
    assert run.outputs["commit-url"].endswith(f"/{target}/commit/{head.oid}")
    published = hub.files(target)
    built = read_manifest(Path(run.outputs["folder"]) / "splice.json").files
    assert {name: published[name] for name in built} == {n: d.sha256 for n, d in built.items()}
    assert f"{len(built)} files of {target} at v1.0 are those that were built" in run.log
    assert f"`{head.oid}`" in run.summary
    assert "vllm serve" in run.summary

    # The same recipe gives the same files, for which there is nothing to do.
    again = repository.run({"mode": "release", "hf-token": TOKEN}, TAGGED)
    assert again.failed is None, again.log
    assert "already published" in again.summary
    assert again.outputs["commit"] == head.oid
    assert hub.history(target) == [head, *before]

    # Another recipe under the same tag would change what others have downloaded by it.
    recipe = repository.workspace / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("after_layer: 1", "after_layer: 2"))
    other = repository.run({"mode": "release", "hf-token": TOKEN}, TAGGED)
    assert ended(other) == ("Publish", 8)
    assert other.ran[-1] == "Report"
    (message,) = messages(other)
    assert re.match(rf"tag: 'v1.0' of {target} points to {head.oid}", message)
    assert "::error title=hubsplice, exit code 8::" in other.log
    assert hub.tags(target) == {"v1.0": head.oid}
    assert hub.history(target) == [head, *before]
    assert other.summary.startswith(f"## `{target}`: failed\n\n> [!CAUTION]\n> tag: ")
    assert "### Fidelity" in other.summary
    assert not any(TOKEN in everything_shown(run) for run in (again, other))


def test_too_low_a_fidelity_is_shown_and_published_only_when_told(repository: Repository) -> None:
    inputs = {"require-fidelity": UNREACHABLE}
    run = repository.run({"mode": "check"} | inputs, BRANCH)
    assert ended(run) == ("Plan", 5)
    assert "NOT met" in messages(run)[0]
    assert "NOT met" in run.outputs["verdict"]
    assert "### Fidelity" in run.summary
    assert "### Plan" in run.summary

    inputs |= {"repo-id": "acme/other", "tag": "v2", "private": "false", "allow-failed": "true"}
    inputs |= {"allow-misfit": "true"}
    told = repository.run({"mode": "release", "hf-token": TOKEN} | inputs, BRANCH)
    assert told.failed is None, told.log
    assert repository.hub.tags("acme/other") == {"v2": told.outputs["commit"]}
    assert told.outputs["repo-id"] == "acme/other"
    assert not exists(repository.hub, repository.target)
    assert "NOT met" in told.summary


def test_the_hub_refuses_a_token(repository: Repository) -> None:
    run = repository.run({"mode": "release", "hf-token": EXPIRED}, TAGGED)
    assert run.failed is not None
    assert "### Plan" not in run.summary
    assert len(messages(run)) == 1
    assert not exists(repository.hub, repository.target)
    assert EXPIRED not in everything_shown(run)


def test_a_release_without_a_way_to_sign_in_ends_before_the_build(repository: Repository) -> None:
    run = repository.run({"mode": "release"}, TAGGED)
    assert ended(run) == ("Read the inputs", 2)
    (message,) = messages(run)
    assert "id-token: write" in message
    assert "hf-token" in message


def test_a_mistake_in_the_recipe_is_one_annotation(repository: Repository) -> None:
    recipe = repository.workspace / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("after_layer", "after_leyer"))
    run = repository.run({"mode": "check"}, BRANCH)
    assert ended(run) == ("Read the inputs", 2)
    (message,) = messages(run)
    assert "after_leyer" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "relase"),
        ("private", "yes"),
        ("allow-failed", "1"),
        ("recipe", "missing.yaml"),
        ("repo-id", "me/x y"),
    ],
)
def test_a_wrong_input_is_refused_at_once(repository: Repository, name: str, value: str) -> None:
    run = repository.run({"mode": "check", name: value}, BRANCH)
    assert ended(run)[0] == "Read the inputs"
    assert run.ran == ["Read the inputs"]
    (message,) = messages(run)
    assert value in message


def test_no_input_is_run_as_code(repository: Repository, tmp_path: Path) -> None:
    made = tmp_path / "made"
    hostile = f"$(touch {made})`touch {made}`; touch {made}; '\"\n::add-mask::x"
    for name in ("mode", "private", "recipe", "repo-id", "tag"):
        inputs = {"mode": "check", "recipe": "missing.yaml", name: hostile}
        assert repository.run(inputs, BRANCH).failed is not None
    assert not made.exists()
