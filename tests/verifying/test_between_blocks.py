"""A checkpoint whose edit lies inside a base layer: every half of the torn layers is checked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hubsplice.verifying import Run, verify
from hubsplice.verifying.engines import TransformersEngine
from tests.building.conftest import quiet
from tests.verifying.conftest import Build, Spliced, Workshop

RECIPE = """
  - after_attention: 1
    sae: {path: jumprelu}
    edits: [{kind: ablate, feature: 3}, {kind: scale, feature: 5, factor: 4}]
"""


@pytest.fixture(scope="module")
def torn(make: Build, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Spliced:
    """Layer 1 has the base's attention and the edit's MLP, and layer 2 the others."""
    folder = tmp_path_factory.mktemp("torn") / "built"
    make(RECIPE, folder, measure=False)
    return Spliced(folder, workshop.bases["llama"])


@pytest.fixture
def copy(torn: Spliced, tmp_path: Path) -> Spliced:
    return Spliced(shutil.copytree(torn.folder, tmp_path / "copy"), torn.base)


def test_it_passes_as_it_is(torn: Spliced) -> None:
    assert torn.failed() == {}
    assert torn.json("splice.json")["layer_map"][1:3] == [
        {"attention": {"base": 1}, "mlp": {"splice": 0}},
        {"attention": {"splice": 0}, "mlp": {"base": 1}},
    ]


def one_more(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name].flatten()[0] += 1


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        ("model.layers.1.self_attn.q_proj.weight", {"base tensors"}),
        ("model.layers.1.input_layernorm.weight", {"base tensors"}),
        ("model.layers.2.mlp.down_proj.weight", {"base tensors"}),
        ("model.layers.2.post_attention_layernorm.weight", {"base tensors"}),
        ("model.layers.1.post_attention_layernorm.weight", {"inserted layers"}),
        ("model.layers.1.self_attn.q_proj.bias", {"zero tensors"}),
        ("model.layers.2.mlp.down_proj.bias", {"zero tensors"}),
        ("model.layers.2.self_attn.o_proj.weight", {"zero tensors", "inserted layers"}),
        ("model.layers.2.self_attn.o_proj.bias", {"zero tensors", "inserted layers"}),
    ],
)
def test_a_change_of_either_half_is_found(copy: Spliced, name: str, checks: set[str]) -> None:
    copy.edit_tensors(lambda tensors: one_more(tensors, name), of=name)
    copy.forge_checksums()
    assert set(copy.failed()) == checks


@pytest.mark.parametrize(
    "name", ["model.layers.1.self_attn.o_proj.bias", "model.layers.1.mlp.down_proj.weight"]
)
def test_a_silenced_edit_is_found_by_structure_and_behaviour(copy: Spliced, name: str) -> None:
    copy.edit_tensors(lambda tensors: tensors[name].zero_(), of=name)
    copy.edit_manifest(lambda m: m.update(zero_tensors=sorted({*m["zero_tensors"], name})))
    copy.forge_checksums()
    assert "structure" in copy.failed()
    run = Run(TransformersEngine(), "float32")
    found = verify(str(copy.folder), base=str(copy.base), revision=None, progress=quiet, run=run)
    assert "layer edits" in {check.name for check in found.checks if check.passed is False}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda m: m["layers"][0].update(block="mlp"),
            "layers[0].site: found 1, expected 1's attention, as in layer_map",
        ),
        (
            lambda m: m.update(layer_map=[{"base": i} for i in range(4)] + [{"splice": 0}]),
            "layers[0].site: found 1's attention, expected 3, as in layer_map",
        ),
    ],
)
def test_another_place_than_the_layers(
    copy: Spliced, change: Callable[[dict[str, Any]], None], problem: str
) -> None:
    copy.edit_manifest(change)
    assert problem in copy.failed()["layer map"].problems
