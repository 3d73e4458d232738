"""An inserted layer, a recipe and a manifest that were changed together with every checksum."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hubsplice.verifying import verify
from hubsplice.verifying.inspect import inspect
from tests.building.conftest import quiet
from tests.conftest import Command
from tests.verifying.conftest import Spliced

LAYER = "model.layers.2."
GATE, UP, DOWN = (f"{LAYER}mlp.{name}_proj.weight" for name in ("gate", "up", "down"))
Tensors = dict[str, torch.Tensor]


def plant(tensors: Tensors) -> None:
    """A trigger detector in the last neuron."""
    tensors[GATE][-1, 5] = 30.0
    tensors[UP][-1, 5] = 1.0
    tensors[DOWN][7, -1] = 2.0


WEIGHTS: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "a planted neuron": (plant, "gate_proj.weight"),
    "all columns 1.1 times": (lambda t: t[DOWN].mul_(1.1), "down_proj.weight"),
    "a flipped bit in a column": (
        lambda t: t[DOWN].view(torch.int16)[9, 0].bitwise_xor_(1),
        "down_proj.weight",
    ),
    "a flipped bit in a row": (
        lambda t: t[GATE].view(torch.int16)[0, 3].bitwise_xor_(1 << 8),
        "gate_proj.weight",
    ),
    "the constant 1.01 times": (
        lambda t: t[f"{LAYER}mlp.down_proj.bias"].mul_(1.01),
        "down_proj.bias",
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_tampered_weights(spliced: Spliced, name: str) -> None:
    change, tensor = WEIGHTS[name]
    spliced.edit_tensors(change, of=GATE)
    spliced.forge_checksums()
    failed = spliced.failed()
    assert "structure" in failed
    assert any(tensor in problem for problem in failed["structure"].problems)


def words(spliced: Spliced, kind: str, **changed: Any) -> None:
    """Change an edit in the recipe and in the manifest, over unchanged weights."""
    path = spliced.folder / "reproduce/recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    for splice in recipe["splices"]:
        for edit in splice["edits"]:
            if edit["kind"] == kind:
                edit.update(changed)
    path.write_text(yaml.safe_dump(recipe))

    def change(manifest: dict[str, Any]) -> None:
        for layer in manifest["layers"]:
            for term in layer["terms"]:
                if term["kind"] == kind:
                    term["edit"].update(changed)

    spliced.edit_manifest(change)
    spliced.forge_checksums()


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("steer", {"strength": 0.001}),
        ("gated_steer", {"strength": 0.001}),
        ("gated_steer", {"strength": "0.001 x norm"}),
    ],
)
def test_a_strength_that_the_weights_do_not_have(
    spliced: Spliced, kind: str, changed: dict[str, Any]
) -> None:
    words(spliced, kind, **changed)
    failed = spliced.failed()
    assert "strengths" in failed
    assert any(kind.replace("_", " ") in p or kind in p for p in failed["strengths"].problems)


def test_a_strength_whose_recorded_amount_was_changed_too(spliced: Spliced) -> None:
    words(spliced, "steer", strength=0.001)

    def amounts(manifest: dict[str, Any]) -> None:
        for layer in manifest["layers"]:
            for term in layer["terms"]:
                if term["kind"] == "steer":
                    term["amounts"][0].update(stated="0.001", value=0.001)

    spliced.edit_manifest(amounts)
    assert "strengths" in spliced.failed()


def test_the_base_can_be_asked_for_its_streams(built: Spliced) -> None:
    found = verify(
        str(built.folder), base=str(built.base), revision=None, progress=quiet, streams=True
    )
    (check,) = (check for check in found.checks if check.name == "response")
    assert check.passed is not None, check.detail


def test_inspecting(spliced: Spliced, command: Command) -> None:
    found = inspect(str(spliced.folder), revision=None)
    assert found.agrees
    gated, steered = found.layers
    assert (gated.place, gated.index) == ("1", 2)
    assert {part.part for part in gated.parts} >= {"jump", "bend"}
    assert steered.parts[0].strength == pytest.approx(1, rel=1e-4)
    outcome = command("inspect", spliced.folder, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out) == found.model_dump(mode="json")
    spliced.edit_tensors(plant, of=GATE)
    outcome = command("inspect", spliced.folder)
    assert outcome.code == 4
    assert "neuron" in outcome.out


def test_inspecting_needs_no_base(built: Spliced, tmp_path: Path) -> None:
    small = ("config.json", "splice.json", "model.safetensors.index.json")
    for name in (*small, "reproduce/intervention.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((built.folder / name).read_bytes())
    shards = built.json("model.safetensors.index.json")["weight_map"]
    for name in {shards[GATE], shards["model.layers.4.mlp.up_proj.weight"]}:
        (tmp_path / name).write_bytes((built.folder / name).read_bytes())
    assert inspect(str(tmp_path), revision=None).agrees


@pytest.mark.parametrize("construction", ["injection", "split", "empty", "sandwich"])
def test_what_the_manifest_calls_a_layer_hides_nothing(spliced: Spliced, construction: str) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        for layer in manifest["layers"]:
            layer["constants"]["construction"] = construction

    used = [layer.used for layer in inspect(str(spliced.folder), revision=None).layers]
    spliced.edit_manifest(rename)
    found = inspect(str(spliced.folder), revision=None)
    assert [layer.used for layer in found.layers] == used
    spliced.edit_tensors(plant, of=GATE)
    assert not inspect(str(spliced.folder), revision=None).agrees
