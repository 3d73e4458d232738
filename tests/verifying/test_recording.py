"""What an engine did, on record in a folder and on its card: the maker's word, and no more."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest

from hubsplice.card import render_card, write_card
from hubsplice.checkpoint.checksums import recorded_digest
from hubsplice.checkpoint.engine_runs import (
    ENGINE_RUNS,
    EngineRuns,
    read_engine_runs,
    weights_digest,
)
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.errors import CheckpointError, RecipeError
from hubsplice.files.digest import digest_file
from hubsplice.verifying import Check, Verification
from hubsplice.verifying.behaviour import Behaviour
from hubsplice.verifying.recording import record_run, require_recordable
from tests.card.examples import RUN, SHA, built_folder, manifest, report
from tests.test_visible import HOSTILE

RECIPE = "base_model: owner/model\nsplices: [{after_layer: 0}]\npublish: {repo_id: me/model}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = built_folder(tmp_path / "my-model")
    (made / "reproduce/recipe.yaml").write_text(RECIPE)
    return made


def verification(*, passed: bool = True, **fields: Any) -> Verification:
    behaviour = {
        "engine": "vLLM",
        "version": "0.32.0",
        "device": "cpu",
        "dtype": "bfloat16",
        "prompts": 8,
        "prompt_tokens": 200,
        "generated_tokens": 128,
        "effect": 0.41,
        "noise_floor": 0.011,
        "error": 0.0123,
        "largest_error": 0.3,
        "allowed_share": 0.05,
        "serving_error": None,
        "largest_serving_error": None,
        "serving_floor": None,
        "layer_errors": (),
    } | fields
    return Verification(
        model="m",
        base="b",
        passed=passed,
        verdict="v",
        checks=(Check.of("edit", [] if passed else ["it is not there"], ""),),
        behaviour=Behaviour.model_validate(behaviour),
    )


def runs_part(folder: Path) -> str:
    text = (folder / "README.md").read_text(encoding="utf-8")
    return text[text.index("## Run it") : text.index("## What was edited")]


def test_a_run_stands_on_the_card_and_in_its_data(folder: Path) -> None:
    run = record_run(folder, verification())
    assert run is not None
    today = datetime.datetime.now(datetime.UTC).date()
    said = runs_part(folder)
    assert f"- Verified with vLLM 0.32.0 on CPU, {today}, in bfloat16: it serves the edit." in said
    assert "0.0123 nats a token from the exact hook, noise floor 0.0110" in said
    assert "as its maker says" in said
    assert "That is a claim, which `hubsplice verify me/model --engine vllm`" in said
    assert "is on record" not in said
    (data,) = json.loads((folder / "card.json").read_text())["runs"]
    assert data.startswith("Verified with vLLM 0.32.0 on CPU")
    listed = read_manifest(folder / "splice.json").files
    assert listed[ENGINE_RUNS] == digest_file(folder / ENGINE_RUNS)
    assert recorded_digest(folder, ENGINE_RUNS) == listed[ENGINE_RUNS].sha256
    # The card is written anew elsewhere, with nothing but the folder.
    before = (folder / "README.md").read_text()
    write_card(folder, model_id="me/model")
    assert (folder / "README.md").read_text() == before


def test_without_a_run_the_card_promises_none() -> None:
    text = render_card(manifest(), report(), model_id="me/model")
    assert "No run of a server with this checkpoint is on record." in text
    assert "**Run with this checkpoint**" not in text
    assert "examined with models of this class" in text


def test_a_run_that_failed_is_recorded_as_one(folder: Path) -> None:
    record_run(folder, verification(passed=False))
    said = runs_part(folder)
    assert "NOT passed: edit." in said
    assert "erified" not in said


def test_a_later_run_takes_the_place_of_the_same(folder: Path) -> None:
    record_run(folder, verification(passed=False))
    record_run(folder, verification(engine="transformers", device=None, noise_floor=None))
    record_run(folder, verification())
    found = read_engine_runs(folder, read_manifest(folder / "splice.json"))
    assert [(run.engine, run.passed) for run in found] == [("transformers", True), ("vLLM", True)]
    assert "- Verified with transformers 0.32.0, 2" in runs_part(folder)


def test_a_run_says_nothing_of_other_weights(folder: Path) -> None:
    record_run(folder, verification())
    content = json.loads((folder / "splice.json").read_text())
    content["files"]["model.safetensors"]["sha256"] = "f" * 64
    (folder / "splice.json").write_text(json.dumps(content))
    write_card(folder)
    assert "No run of a server with this checkpoint is on record." in runs_part(folder)
    config = manifest(files={"config.json": {"sha256": SHA, "size": 3}})
    assert weights_digest(config) != weights_digest(manifest())


def test_a_card_that_somebody_edited_is_kept(folder: Path) -> None:
    write_card(folder, model_id="me/model")
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nMine.\n")
    record_run(folder, verification())
    assert card.read_text().endswith("\nMine.\n")
    assert json.loads((folder / "card.json").read_text())["runs"]


def test_what_a_record_says_is_only_ever_text(folder: Path) -> None:
    run = record_run(folder, verification())
    assert run is not None
    hostile = run.model_copy(update={"engine": HOSTILE[:60], "version": "<b>1</b> [x](y)"})
    text = render_card(manifest(), report(), model_id="me/model", runs=(hostile,))
    assert "<b>1</b>" not in text
    assert "\\[x\\](y)" in text or "\\[x]" in text


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not valid JSON"),
        ('{"schema_version": 1, "runs": [{}]}', "runs.0.engine"),
        ('{"schema_version": 1, "runs": [], "proof": true}', "proof"),
        ('{"schema_version": 1, "runs": [], "a": NaN}', "NaN"),
    ],
)
def test_a_malformed_record_is_refused(folder: Path, content: str, problem: str) -> None:
    record_run(folder, verification())
    (folder / ENGINE_RUNS).write_text(content)
    with pytest.raises(CheckpointError, match=re.escape(problem)):
        write_card(folder)


def test_a_record_that_the_manifest_does_not_list_counts_for_nothing(folder: Path) -> None:
    record_run(folder, verification())
    unlisted = read_manifest(folder / "splice.json")
    files = {name: digest for name, digest in unlisted.files.items() if name != ENGINE_RUNS}
    assert read_engine_runs(folder, unlisted.model_copy(update={"files": files})) == ()


def test_a_record_does_not_grow_without_end() -> None:
    runs = EngineRuns(runs=())
    for number in range(120):
        runs = runs.with_run(RUN.model_copy(update={"version": str(number)}))
    assert len(runs.runs) == 99
    assert runs.runs[-1].version == "119"


def test_where_nothing_can_be_recorded(folder: Path) -> None:
    assert record_run(folder, verification().model_copy(update={"behaviour": None})) is None
    assert not (folder / ENGINE_RUNS).exists()
    with pytest.raises(RecipeError, match="--record: 'me/model' is no folder here"):
        require_recordable("me/model")
