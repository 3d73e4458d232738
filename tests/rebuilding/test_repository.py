"""A model, its base and its SAE on a loopback double of the Hub, whose branches have moved on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.files.safetensors_header import read_header
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.pinned import with_text_commits
from tests.building.conftest import Workshop
from tests.conftest import Outcome
from tests.hub.conftest import forker
from tests.hub.forking import Forker
from tests.loopback.client import LoopbackHub
from tests.rebuilding.conftest import TEXT, Published

__all__ = ["forker"]

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def run(hub: LoopbackHub, forker: Forker, tmp_path: Path) -> Run:
    """Run a command as a process of its own, with an empty HF_HOME."""

    def command(*arguments: str | Path) -> Outcome:
        environment = hub.environment(tmp_path / "home")
        done = forker.run(list(map(str, arguments)), environment, tmp_path)
        assert "Traceback" not in done.stderr, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    return command


def test_the_recorded_commits_are_used(
    hub: LoopbackHub, run: Run, workshop: Workshop, tmp_path: Path
) -> None:
    base = hub.seed("me/base", workshop.bases["bfloat16"])
    sae = hub.seed("me/sae", workshop.folder / "jumprelu")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "base_model: me/base\nsplices:\n  - sae: {repo_id: me/sae, revision: main}\n"
        f"    edits: [{{kind: ablate, feature: 3}}]\n{TEXT}"
    )
    code, _, err = run("build", recipe, "--output", "built", "--no-measure", "--allow-misfit")
    assert code == 0, err
    written = yaml.safe_load((tmp_path / "built/reproduce/recipe.yaml").read_text())
    assert written["revision"] == base
    assert written["splices"][0]["sae"]["revision"] == sae
    assert json.loads((tmp_path / "built/reproduce/sources.json").read_text()) == {"local": []}
    term = read_manifest(tmp_path / "built" / MANIFEST).edits[0].terms[0]
    assert term.source == {"repo_id": "me/sae", "revision": sae}

    hub.seed("me/spliced", tmp_path / "built")
    hub.commit_by_other("me/base", "config.json", "{}")
    hub.commit_by_other("me/sae", "cfg.json", "{}")
    shutil.rmtree(tmp_path / "home")
    code, out, err = run("reproduce", "me/spliced", "--json")
    found = json.loads(out)
    assert code == 0, found
    assert found["grade"] == "same bytes"
    assert found["base"] == f"me/base at {base}"
    # Of the model only its records and its inserted tensors are fetched.
    (snapshot,) = (tmp_path / "home").glob("**/models--me--spliced/snapshots/*")
    fetched = {path.name for path in snapshot.glob("*.safetensors")}
    assert fetched == {"model-00002-of-00002.safetensors"}

    gone = "f" * 40
    manifest = json.loads((tmp_path / "built/splice.json").read_text())
    manifest["base"]["commit"] = gone
    (tmp_path / "built/splice.json").write_text(json.dumps(manifest))
    code, _, err = run("reproduce", "built")
    assert code == 2
    assert f"revision: '{gone}' is no commit, branch or tag of me/base" in err


def test_texts_on_the_hub_get_their_commits() -> None:
    splices = [{"after_layer": 1, "edits": []}]
    section = {"dataset": "me/notes", "revision": "main"}
    recipe = Recipe(base_model="b", splices=splices, calibration=section, fidelity=section)
    pinned = with_text_commits(recipe, {"calibration": "c" * 40})
    # What was not read is the same text at the same commit.
    assert pinned.calibration.revision == pinned.fidelity.revision == "c" * 40
    other = Recipe(
        base_model="b", splices=splices, calibration=section, fidelity={"dataset": "me/others"}
    )
    assert with_text_commits(other, {"calibration": "c" * 40}).fidelity.revision is None


def test_inspect_fetches_the_bytes_of_inserted_layers_alone(
    hub: LoopbackHub, run: Run, original: Published
) -> None:
    hub.seed("me/inspected", original.folder)
    hub.reset_counters()
    code, out, err = run("inspect", "me/inspected", "--json")
    assert code == 0, err
    sent = hub.counters().sent_bytes
    here = json.loads(run("inspect", original.folder, "--json")[1])
    assert json.loads(out) | {"model": None} == here | {"model": None}

    added = read_header(original.folder / "model-00002-of-00002.safetensors")
    inserted = [t for t in added.tensors if re.match(r"model\.layers\.[24]\.", t.name)]
    others = [t for t in added.tensors if t not in inserted]
    intervention = (original.folder / "reproduce/intervention.safetensors").stat().st_size
    beside = added.data_start + intervention
    assert sum(t.size for t in others) > 0
    # Attention's tensors are zero, and not looked at here.
    assert beside < sent <= beside + sum(t.size for t in inserted)
    assert sent < added.file_size + intervention

    # What another command has downloaded is not fetched again, and serves without a network.
    assert run("diff", "me/inspected", original.folder)[0] == 0
    hub.reset_counters()
    assert json.loads(run("inspect", "me/inspected", "--json")[1])["agrees"]
    assert hub.counters().sent_bytes == 0
