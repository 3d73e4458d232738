"""Builds in processes of their own: what they print, and what a kill leaves."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from tests.building.conftest import STEER, Workshop, start
from tests.conftest import Command

# Little, since it is read by a process each time.
LITTLE_TEXT = """
calibration: {tokens: 1024, sequence_length: 64, scan: 0}
fidelity: {tokens: 512, sequence_length: 64, scan: 0}
card: {prompts: []}
"""


def test_json_on_stdout_and_warnings_on_stderr(
    workshop: Workshop, spawn: Command, tmp_path: Path
) -> None:
    splices = (
        f"  - {{after_layer: 2, sae: {{path: {workshop.folder}/jumprelu}}, "
        "edits: [{kind: scale, feature: 3, factor: 2}]}"
    )
    recipe = workshop.recipe(splices, more=LITTLE_TEXT)
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    built = spawn("build", "recipe.yaml", "--output", "out", "--json")
    assert built.code == 0, built.err
    shown = json.loads(built.out)
    assert shown["folder"] == "out"
    assert shown["report"] == json.loads((tmp_path / "out/fidelity.json").read_text())
    assert "warning: splices[0]: after_layer: 2, while" in built.err

    measured = spawn("measure", "out", "--base", workshop.bases["llama"], "--json")
    assert measured.code == 0, measured.err
    # Another process measures the same.
    assert json.loads(measured.out) == shown["report"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "recipe.yaml"]


def test_a_mistake_is_one_line_and_an_exit_code(
    workshop: Workshop, spawn: Command, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(workshop.recipe("  - {after_layer: 9}"))
    outcome = spawn("build", "recipe.yaml", "--output", "out")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_kill_leaves_no_result_and_a_rerun_cleans_up(
    workshop: Workshop, spawn: Command, tmp_path: Path
) -> None:
    splices = STEER.replace("v.safetensors", f"{workshop.folder}/v.safetensors")
    recipe = workshop.recipe(splices, more=LITTLE_TEXT)
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    process = start("build", "recipe.yaml", "--output", "out", folder=tmp_path)
    # Measuring comes after the weights were written, and takes seconds.
    while not (written := list(tmp_path.glob(".out.partial-*/content/*.safetensors"))):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert written[0].exists()

    again = spawn("build", "recipe.yaml", "--output", "out")
    assert again.code == 0, again.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "recipe.yaml"]
    assert (tmp_path / "out/splice.json").exists()


def test_an_interrupt_is_exit_code_130(workshop: Workshop, spawn: Command, tmp_path: Path) -> None:
    splices = STEER.replace("v.safetensors", f"{workshop.folder}/v.safetensors")
    (tmp_path / "recipe.yaml").write_text(workshop.recipe(splices), encoding="utf-8")
    process = start("build", "recipe.yaml", "--output", "out", folder=tmp_path)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("calibrating"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]
