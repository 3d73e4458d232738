"""Before and after: what a build asks, and that its answers are the checkpoint's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hubsplice.building.build import BuildResult
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.errors import CheckpointError
from hubsplice.fidelity import runs
from hubsplice.fidelity.answering import Asker
from hubsplice.fidelity.answers import Answer, Answers
from hubsplice.recipe.local_paths import local_paths
from hubsplice.recipe.reading import load_recipe
from hubsplice.streams.room import MEMORY
from hubsplice.verifying.files import unexpected_files, visible_files
from tests.building.conftest import STEER, TEXT, Build, Workshop
from tests.conftest import Command

BARE = TEXT.replace("card: {prompts: []}\n", "")
CARD = """
card:
  prompts: ["Who are you?", {text: "Once upon"}]
  before: notes.md
  images: [plot.png]
"""
CHOSEN = 'prompts: ["What is a feature of yours?"]\n'


@pytest.fixture(scope="module")
def asked(workshop: Workshop, make: Build, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    (workshop.folder / "notes.md").write_text("My *own* words.\n\n![p](plot.png)\n")
    (workshop.folder / "plot.png").write_bytes(b"\x89PNG")
    output = tmp_path_factory.mktemp("asked") / "out"
    return make(STEER, output, base="bfloat16", more=BARE + CARD)


@pytest.fixture(scope="module")
def chosen(
    workshop: Workshop, make: Build, tmp_path_factory: pytest.TempPathFactory
) -> BuildResult:
    output = tmp_path_factory.mktemp("chosen") / "out"
    return make(STEER, output, base="bfloat16", more=BARE + CHOSEN)


def answers_of(result: BuildResult) -> Answers:
    assert result.report is not None
    assert result.report.answers is not None
    return result.report.answers


def test_the_checkpoint_says_what_the_card_says(asked: BuildResult) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = answers_of(asked)
    assert [answer.prompt for answer in found.prompts] == ["Who are you?", "Once upon"]
    assert found.chosen == "by the author"
    tokenizer = AutoTokenizer.from_pretrained(asked.folder)
    model = AutoModelForCausalLM.from_pretrained(asked.folder, dtype=torch.bfloat16)
    inputs = tokenizer("Once upon", return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=found.new_tokens, do_sample=False)
    said = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert found.prompts[1].form == "text"
    assert found.prompts[1].greedy.edited.removesuffix("…") == said.strip()
    assert found.prompts[1].greedy.base != found.prompts[1].greedy.edited
    assert found.prompts[0].sampled is not None
    assert found.prompts[1].sampled is None


def test_prompts_on_which_the_edit_acts_are_chosen(chosen: BuildResult) -> None:
    found = answers_of(chosen)
    assert found.chosen == "by effect"
    assert found.candidates == 17
    assert len(found.prompts) == 3
    assert all(changed(answer) for answer in found.prompts)


def changed(answer: Answer) -> bool:
    return answer.greedy.base != answer.greedy.edited


def test_the_authors_words_are_part_of_the_model(asked: BuildResult) -> None:
    folder = asked.folder
    listed = read_manifest(folder / "splice.json").files
    assert {"card/before.md", "card/plot.png"} <= set(listed)
    assert not unexpected_files(set(visible_files(folder)), set(listed))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "\nMy *own* words.\n\n![p](card/plot.png)\n" in card
    assert "Who are you?" in card
    assert json.loads((folder / "card.json").read_text())["answers"]["greedy"]["rows"]
    # Building the layers again needs none of it.
    assert not any(
        "card" in name for name in local_paths(load_recipe(folder / "reproduce/recipe.yaml"))
    )


def test_a_receiver_finds_all_of_it_given_by_the_files(
    asked: BuildResult, workshop: Workshop, command: Command
) -> None:
    outcome = command("verify", asked.folder, "--base", workshop.bases["bfloat16"], "--json")
    assert outcome.code == 0, outcome.err
    claims = [claim["file"] for claim in json.loads(outcome.out)["claims"]]
    assert not {"README.md", "card.json"} & set(claims)
    assert "card/before.md" in claims


def test_an_answer_that_fails_loses_no_build(
    make: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise CheckpointError("no generation here")

    monkeypatch.setattr(Asker, "answers", fail)
    result = make(STEER, tmp_path / "out", base="bfloat16", more=BARE)
    assert result.report is not None
    assert result.report.answers is None
    assert any("no generation here" in warning for warning in result.report.warnings)
    assert "## Before and after" not in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_a_build_that_stays_on_the_disk_reports_the_same(
    asked: BuildResult, make: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MEMORY, "0")
    result = make(STEER, tmp_path / "out", base="bfloat16", more=BARE + CARD)
    assert result.report == asked.report


def test_what_would_take_hours_is_left_out_and_said(
    make: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MEMORY, "0")
    monkeypatch.setattr(runs, "MOST_READ", 0)
    report = make(STEER, tmp_path / "out", base="bfloat16", more=BARE).report
    assert report is not None
    assert (report.answers, report.greedy, report.effect) == (None, None, None)
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    for name in ("the answers", "the greedy comparison", "what the edit does to text"):
        assert any(
            w.startswith(f"left out: {name}") and "from the disk" in w for w in report.warnings
        )
        assert f"\n- {name}" in card


def test_a_picture_that_fails_loses_no_build(
    make: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubsplice.pictures import responses

    def fail(*_: Any) -> None:
        raise ArithmeticError("no pen")

    monkeypatch.setattr(responses, "_panel", fail)
    splices = "  - {sae: {path: standard}, edits: [{kind: ablate, feature: 3}]}"
    result = make(splices, tmp_path / "out", base="bfloat16")
    assert result.report is not None
    assert result.report.answers is None
    assert any("no pen" in warning for warning in result.warnings)
    assert not (tmp_path / "out/responses.png").exists()
    assert (tmp_path / "out/layers.png").exists()
