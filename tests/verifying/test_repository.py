"""Verifying a repository, against a loopback double of the Hub (which is not the Hub)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.conftest import forker
from tests.hub.forking import Forker
from tests.loopback.client import LoopbackHub
from tests.verifying.conftest import Spliced

__all__ = ["forker"]

Verify = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
def base_commit(hub: LoopbackHub, built: Spliced) -> str:
    """The base's commit; its main branch has moved on since."""
    commit = hub.seed("me/base", built.base)
    hub.commit_by_other("me/base", "config.json", "{}")
    return commit


@pytest.fixture
def spliced_of_hub(spliced: Spliced, base_commit: str) -> Spliced:
    """A checkpoint whose manifest names the base on the Hub."""
    named = {"name": "me/base", "repo_id": "me/base", "commit": base_commit}
    spliced.edit_manifest(lambda manifest: manifest["base"].update(named))
    return spliced


@pytest.fixture
def run(hub: LoopbackHub, forker: Forker, tmp_path: Path) -> Verify:
    """Run `hubsplice verify --json` as a process of its own, with an empty HF_HOME."""

    def verify(*arguments: str, **more: str) -> tuple[int, dict[str, Any], str]:
        environment = hub.environment(tmp_path / "home") | more
        done = forker.run(["verify", "--json", *arguments], environment, tmp_path)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr

    return verify


def test_a_repository_and_the_base_at_its_commit(
    hub: LoopbackHub, run: Verify, spliced_of_hub: Spliced, base_commit: str
) -> None:
    commit = hub.seed("me/whole", spliced_of_hub.folder)
    hub.tag_by_other("me/whole", "v1.0", commit)
    hub.commit_by_other("me/whole", "splice.json", "{}")
    code, found, err = run("me/whole", "--revision", "v1.0")
    assert code == 0, [check for check in found["checks"] if not check["passed"]]
    assert found["model"] == f"me/whole at {commit}"
    assert found["base"] == f"me/base at {base_commit}"
    code, _, err = run("me/whole")
    assert code == 4
    assert "not a valid manifest" in err


def test_files_that_are_never_fetched_are_found(
    hub: LoopbackHub, run: Verify, spliced_of_hub: Spliced, tmp_path: Path
) -> None:
    for name in ("modeling_llama.py", "pytorch_model.bin", "reproduce/run.py"):
        (spliced_of_hub.folder / name).write_text("import os\n", encoding="utf-8")
    hub.seed("me/with-code", spliced_of_hub.folder)
    code, found, _ = run("me/with-code")
    assert code == 4
    (failed,) = [check for check in found["checks"] if not check["passed"]]
    assert failed["name"] == "no other files"
    assert failed["problems"] == [
        f"{name}: the manifest does not list it"
        for name in ("modeling_llama.py", "pytorch_model.bin", "reproduce/run.py")
    ]
    fetched = {path.name for path in (tmp_path / "home").rglob("*")}
    assert "splice.json" in fetched
    assert not fetched & {"modeling_llama.py", "pytorch_model.bin", "run.py"}


def test_offline_what_the_repository_holds_is_not_known(
    hub: LoopbackHub, run: Verify, spliced_of_hub: Spliced
) -> None:
    hub.seed("me/offline", spliced_of_hub.folder)
    assert run("me/offline")[0] == 0
    code, found, _ = run("me/offline", HF_HUB_OFFLINE="1")
    assert code == 4
    assert [check["name"] for check in found["checks"] if not check["passed"]] == ["no other files"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["me/nothing"], 2, "neither an existing folder nor a model on the Hub"),
        (["nothing"], 2, "'nothing': there is no such folder here, and a Hub model id names its"),
        (["a/b/c"], 2, "neither an existing folder nor a Hub model id"),
        (["me/base", "--revision", "v9"], 2, "--revision: 'v9' is no commit, branch or tag"),
        (["me/base"], 4, "the manifest is missing"),
    ],
)
def test_what_is_not_there(
    run: Verify, base_commit: str, arguments: list[str], code: int, message: str
) -> None:
    found, _, err = run(*arguments)
    assert message in err
    assert found == code


def test_a_hub_out_of_reach(run: Verify) -> None:
    code, _, err = run("me/base", HF_ENDPOINT="http://127.0.0.1:9")
    assert code == 7
    assert err.startswith("error: me/base: could not be fetched")


def test_inspecting_a_repository_fetches_no_shard(
    hub: LoopbackHub, forker: Forker, spliced: Spliced, tmp_path: Path
) -> None:
    hub.seed("me/inspected", spliced.folder)
    environment = hub.environment(tmp_path / "home")
    done = forker.run(["inspect", "--json", "me/inspected"], environment, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["agrees"]
    # Of the shards, it reads the parts that it needs.
    fetched = {path.name for path in (tmp_path / "home").rglob("*.safetensors")}
    assert fetched == {"intervention.safetensors"}
