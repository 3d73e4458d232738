"""The exact edit on a transformers model, from a recipe and from a built checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import hubsplice
from hubsplice.intervention.saved import INTERVENTION, load_intervention
from tests.conftest import MakeCheckpoint

IDS = torch.arange(3, 40)[None]


@pytest.fixture
def model(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


@pytest.fixture(scope="module")
def built(base: Path, sae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    edits = [
        {"feature": 3, "kind": "clamp", "to": "0.5 x max"},
        {"feature": 5, "kind": "steer", "strength": "0.3 x norm"},
    ]
    recipe = {
        "base_model": base,
        "splices": [{"sae": {"path": sae}, "edits": edits}],
        "calibration": {"tokens": 512, "sequence_length": 64},
    }
    output = tmp_path_factory.mktemp("hooked") / "built"
    return hubsplice.build(recipe, output, measure=False, progress=False).folder


@torch.inference_mode()
def logits(model: Any) -> Tensor:
    found: Tensor = model(IDS).logits
    return found


def test_the_hook_edits_while_the_block_lasts(model: Any, built: Path) -> None:
    before = logits(model)
    with hubsplice.hooked(model, built) as edit:
        assert not torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)
    assert "clamp feature 3" in str(edit)
    assert "tensor" not in str(edit)


def test_a_spliced_checkpoint_computes_what_its_hook_computes(model: Any, built: Path) -> None:
    spliced = AutoModelForCausalLM.from_pretrained(built, dtype=torch.float32)
    before, after = logits(model), logits(spliced)
    with hubsplice.hooked(model, str(built)):
        hook = logits(model)
    assert (after - hook).norm() < 0.05 * (after - before).norm()


def test_a_recipe_is_lowered_to_the_same_numbers(
    model: Any, built: Path, base: Path, sae: Path
) -> None:
    recipe = hubsplice.load_recipe(built / "reproduce/recipe.yaml")
    (splice,) = recipe.model_dump(mode="json")["splices"]
    fields = recipe.model_dump(mode="json") | {
        "base_model": base,
        "splices": [splice | {"sae": {"path": sae}}],
    }
    carried = load_intervention(built / INTERVENTION)
    with hubsplice.hooked(model, fields, progress=False) as edit:
        assert len(edit.sites[0].terms) == len(carried.sites[0].terms) == 2
    for made, saved in zip(edit.sites[0].terms, carried.sites[0].terms, strict=True):
        assert (made.label, made.bias, made.function) == (saved.label, saved.bias, saved.function)
        assert torch.equal(made.encoder, saved.encoder)
        assert torch.equal(made.direction, saved.direction)
    assert edit.sites[0].sink_norm == carried.sites[0].sink_norm


def test_the_spliced_model_is_refused(built: Path) -> None:
    spliced = AutoModelForCausalLM.from_pretrained(built)
    with (
        pytest.raises(hubsplice.RecipeError, match="has 5 layers, as the spliced checkpoint"),
        hubsplice.hooked(spliced, built),
    ):
        pass


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"num_hidden_layers": 3}, "has 3 layers, and the base of the checkpoint"),
        ({"hidden_size": 32}, "hidden size is 32, and 'clamp feature 3' is for 64"),
    ],
)
def test_another_model_is_refused(
    tiny_llama: MakeCheckpoint, built: Path, other: dict[str, int], message: str
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama(**other))
    with pytest.raises(hubsplice.RecipeError, match=message), hubsplice.hooked(model, built):
        pass


def test_a_layer_that_the_model_lacks_is_named(tiny_llama: MakeCheckpoint, built: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama(num_hidden_layers=1))
    edit = load_intervention(built / INTERVENTION)
    with (
        pytest.raises(hubsplice.RecipeError, match="it has 1 layers, and the edit is after layer"),
        hubsplice.hooked(model, edit),
    ):
        pass


def test_a_folder_that_hubsplice_did_not_build(model: Any, base: Path) -> None:
    with pytest.raises(hubsplice.CheckpointError), hubsplice.hooked(model, base):
        pass
