"""A model that is built again: the same, nearly the same, or another one, and who is to blame."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from hubsplice.errors import CheckpointError, RecipeError
from hubsplice.rebuilding.grade import MOST_TYPICAL, MOST_WORST
from tests.conftest import Command
from tests.rebuilding.conftest import Published

GATE = "model.layers.2.mlp.gate_proj.weight"
DOWN = "model.layers.2.mlp.down_proj.weight"
# The neurons of the first jump's first copy, of two jumps.
JUMP = [0, 2]
ENVIRONMENT = "reproduce/environment.json"


def other_machine(published: Published) -> None:
    published.edit_json(ENVIRONMENT, lambda record: record.update(cpu="Another CPU"))


def test_the_same_bytes(original: Published, tmp_path: Path) -> None:
    found = original.reproduce(output=tmp_path / "rebuilt")
    assert found.grade == "same bytes", str(found)
    assert (found.tensors, found.fields, found.environment, found.meaning) == ((), (), (), "")
    rebuilt = tmp_path / "rebuilt"
    names = {p.relative_to(rebuilt).as_posix() for p in rebuilt.rglob("*") if p.is_file()}
    assert names == {
        "config.json",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "reproduce/intervention.safetensors",
    }
    for name in names:
        assert (rebuilt / name).read_bytes() == (original.folder / name).read_bytes()
    with safe_open(rebuilt / "model-00002-of-00002.safetensors", framework="pt") as file:
        assert found.compared == len(file.keys())


def test_a_bit_of_an_inserted_tensor(published: Published) -> None:
    """As small as rounding, and in the same environment nothing is rounded otherwise."""

    def flip(tensor: torch.Tensor) -> None:
        tensor.view(torch.int16)[0, 5] ^= 1

    published.edit_tensor(GATE, flip)
    found = published.reproduce()
    assert found.grade == "different"
    (tensor,) = found.tensors
    assert (tensor.name, tensor.differing, tensor.at) == (GATE, 1, (0, 5))
    assert tensor.worst is not None
    assert 0 < tensor.worst <= 1
    assert found.meaning.startswith("The recipe gives the published edit and record, but not")
    # No rounding makes the two neurons of a jump differ.
    other_machine(published)
    assert published.reproduce().grade == "different"


def test_a_threshold_that_rounds_otherwise(published: Published) -> None:
    """What calibration measured may fall to either side of a rounding."""

    def shift(tensor: torch.Tensor) -> None:
        step = torch.finfo(tensor.dtype).eps * 2.0 ** tensor.abs().max().log2().floor()
        tensor[JUMP] += step

    published.edit_tensor("model.layers.2.mlp.gate_proj.bias", shift)
    found = published.reproduce()
    assert found.grade == "different"
    assert "changed after the build" in found.meaning
    other_machine(published)
    found = published.reproduce()
    assert found.grade == "same within rounding", str(found)
    assert "gate_proj.bias" in found.verdict
    (line,) = found.environment
    assert line.startswith("cpu: Another CPU, ")
    assert found.verdict.endswith("the environment differs in cpu.")


def planted(tensor: torch.Tensor) -> None:
    tensor[-1, 3] = 0.01


def test_a_plant_that_is_small_in_every_weight(published: Published) -> None:
    """No element is off by more than rounding may be, and no rounding does this."""

    def plant(tensor: torch.Tensor) -> None:
        for neuron, sign in zip(JUMP, (1, -1), strict=True):
            unit = torch.finfo(tensor.dtype).eps * tensor[:, neuron].abs().max()
            tensor[8:16, neuron] += sign * unit

    published.edit_tensor(DOWN, plant)
    other_machine(published)
    found = published.reproduce()
    (tensor,) = found.tensors
    assert tensor.worst is not None
    assert tensor.typical is not None
    assert tensor.worst <= MOST_WORST
    assert tensor.typical <= MOST_TYPICAL
    assert found.grade == "different"
    assert any("down_proj.weight: neuron 0" in problem for problem in found.sites[0].problems)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (DOWN, lambda tensor: tensor.mul_(1.03)),
        (DOWN, lambda tensor: tensor.zero_()),
        (GATE, planted),
        ("model.layers.2.mlp.up_proj.weight", lambda tensor: tensor.neg_()),
    ],
)
def test_another_layer_is_different_on_any_machine(
    published: Published, name: str, change: Any
) -> None:
    published.edit_tensor(name, change)
    other_machine(published)
    found = published.reproduce()
    assert found.grade == "different"
    assert found.tensors[0].name == name
    assert found.meaning.startswith("The recipe gives the published edit and record, but not")


def swap_neurons(published: Published) -> None:
    """Other tensors of a layer that does the same: the copies of its jumps, in another order."""
    one, other = [0, 1, 2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 0, 1, 2, 3]

    def swap_rows(tensor: torch.Tensor) -> None:
        tensor[one] = tensor[other]

    def swap_columns(tensor: torch.Tensor) -> None:
        tensor[:, one] = tensor[:, other]

    for name in ("gate_proj.weight", "gate_proj.bias", "up_proj.weight", "up_proj.bias"):
        published.edit_tensor(f"model.layers.2.mlp.{name}", swap_rows)
    published.edit_tensor(DOWN, swap_columns)


def test_other_tensors_that_do_the_same(published: Published) -> None:
    """Free choices of a construction fall otherwise elsewhere, and here they may not."""
    swap_neurons(published)
    assert published.reproduce().grade == "different"
    other_machine(published)
    found = published.reproduce()
    assert found.grade == "same within rounding", str(found)
    assert "the layers do the same" in found.verdict
    (site, unchanged) = found.sites
    assert next(edit.label for edit in site.edits) == "ablate feature 3 (regular expressions)"
    assert site.found_neurons == site.expected_neurons > 0
    assert unchanged.apart == 0


@pytest.mark.parametrize("change", [lambda tensor: tensor.mul_(1.03), planted])
def test_other_tensors_that_do_something_else(published: Published, change: Any) -> None:
    swap_neurons(published)
    published.edit_tensor(GATE if change is planted else DOWN, change)
    other_machine(published)
    found = published.reproduce()
    assert found.grade == "different"
    assert not found.sites[0].agrees


def test_another_recipe(published: Published) -> None:
    recipe = published.folder / "reproduce/recipe.yaml"
    text = recipe.read_text()
    assert "strength: 3" in text
    recipe.write_text(text.replace("strength: 3", "strength: 4"))
    other_machine(published)
    found = published.reproduce()
    assert found.grade == "different"
    assert "not built from the published recipe" in found.meaning
    assert any("layers[1].terms[0].edit.strength" in field.field for field in found.fields)
    assert "NOT reproduced" in found.verdict


def test_another_seed(published: Published) -> None:
    recipe = published.folder / "reproduce/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 0", "seed: 1"))
    found = published.reproduce()
    assert found.grade == "different"
    assert "calibration text is another one" in found.meaning
    assert any(field.field == "manifest.seeds.recipe" for field in found.fields)


def test_a_forged_record(published: Published) -> None:
    """What the manifest says of the layers is what the recipe gives, or it is found."""

    def forge(manifest: dict[str, Any]) -> None:
        manifest["layers"][0]["terms"][0]["formula"] = "h"
        manifest["calibration"]["median_norm"]["1"] *= 1.1

    published.edit_manifest(forge)
    found = published.reproduce()
    assert found.grade == "different"
    assert [field.field for field in found.fields] == [
        "manifest.layers[0].terms[0].formula",
        "manifest.calibration.median_norm.1",
    ]
    assert found.meaning.endswith("is not what they were built from.")


def test_missing_and_other_sources_are_named(published: Published, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="with --source") as error:
        published.reproduce(sources=[])
    local = published.json("reproduce/sources.json")["local"]
    (sha256,) = (source["sha256"] for source in local if source["name"] == "jumprelu")
    assert f"sae.path: 'jumprelu' with sha256 {sha256}" in str(error.value)
    other = shutil.copytree(published.sources / "jumprelu", tmp_path / "jumprelu")
    config = json.loads((other / "cfg.json").read_text())
    (other / "cfg.json").write_text(json.dumps(config | {"k": 1}))
    with pytest.raises(RecipeError, match=r"jumprelu is another one, with sha256 [0-9a-f]{64}"):
        published.reproduce(sources=[tmp_path])


@pytest.mark.parametrize("place", ["/etc/notes.txt", "~/notes.txt", "../notes.txt"])
def test_a_published_recipe_reads_no_file_of_this_machine(published: Published, place: str) -> None:
    recipe = published.folder / "reproduce/recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("dataset: builtin", f"dataset: {place}", 1))
    with pytest.raises(CheckpointError, match=r"calibration\.dataset: a local file that"):
        published.reproduce()
    recipe.write_text(text)
    published.edit_json("reproduce/sources.json", lambda record: record["local"].pop())
    with pytest.raises(CheckpointError, match=r"sources\.json does not list"):
        published.reproduce()
    name = {"field": "x", "name": place, "sha256": "0" * 64}
    published.edit_json("reproduce/sources.json", lambda record: record["local"].append(name))
    with pytest.raises(CheckpointError, match="not the bare name of a file or folder"):
        published.reproduce()


def test_sources_are_known_by_their_content(published: Published, tmp_path: Path) -> None:
    renamed = [
        shutil.copytree(published.sources / "jumprelu", tmp_path / "sae"),
        shutil.copy(published.sources / "v.safetensors", tmp_path / "a"),
        shutil.copy(published.sources / "probe.safetensors", tmp_path / "b"),
    ]
    assert published.reproduce(sources=renamed).grade == "same bytes"


def test_another_base_is_named(published: Published, tmp_path: Path) -> None:
    weights = published.base / "model.safetensors"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    with pytest.raises(RecipeError, match=f"a local folder, 'bfloat16'; .*safetensors is {sha256}"):
        published.reproduce(base=None)
    base = shutil.copytree(published.base, tmp_path / "base")
    weights = base / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"base: .* is not the file that the model was made"):
        published.reproduce(base=base)


def test_the_command(command: Command, original: Published, published: Published) -> None:
    where = ("--base", original.base, "--source", original.sources)
    code, out, err = command("reproduce", original.folder, *where)
    assert code == 0, err
    assert out.startswith("Reproduced, same bytes")
    published.edit_tensor(GATE, planted)
    code, out, err = command("reproduce", published.folder, *where, "--json")
    assert code == 10
    assert json.loads(out)["grade"] == "different"
    assert "NOT reproduced" in err
    code, _, err = command("reproduce", published.folder, "--base", original.base)
    assert code == 2
    assert "--source" in err
