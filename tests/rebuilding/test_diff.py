"""What is said of two recipes, and of two models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubsplice.errors import RecipeError
from hubsplice.interface.diff import diff
from tests.conftest import Command
from tests.rebuilding.conftest import Published

RECIPE = """
base_model: me/base
revision: v1
splices:
  - after_layer: 2
    sae: {repo_id: me/sae}
    edits:
      - {kind: ablate, feature: 3}
      - {kind: scale, feature: 5, factor: 4}
      - {kind: clamp, feature: 7, to: 1.5}
      - {kind: ablate, feature: 9, label: "old"}
prompts: ["one", "two"]
"""


def recipes(tmp_path: Path, *replaced: tuple[str, str]) -> tuple[Path, Path]:
    text = RECIPE
    for before, after in replaced:
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "a.yaml").write_text(RECIPE)
    (tmp_path / "b.yaml").write_text(text)
    return tmp_path / "a.yaml", tmp_path / "b.yaml"


def test_a_recipe_and_itself(tmp_path: Path) -> None:
    found = diff(*recipes(tmp_path), progress=False)
    assert found.same
    assert found.verdict == "The same: two recipes without a difference."


def test_changes_of_conditions_in_words(tmp_path: Path) -> None:
    clamp = "{kind: clamp, feature: 7, to: 1.5"
    gates = "[{feature: 5, above: 4.5}, {feature: 11}]"
    a, b = recipes(tmp_path, (clamp, f"{clamp}, when: {{all: {gates}}}"))
    (tmp_path / "a.yaml").write_text(
        RECIPE.replace(clamp, f"{clamp}, when: {{feature: 5, label: soup}}")
    )
    found = diff(a, b, progress=False)
    assert [str(change) for change in found.changes] == [
        "edits: after layer 2: clamp (feature 7, to 1.5): when feature 5 (“soup”) is active → "
        "feature 5 is above 4.5 and feature 11 is active"
    ]


def test_changes_of_recipes_in_words(tmp_path: Path) -> None:
    a, b = recipes(
        tmp_path,
        ("revision: v1", "revision: v2\ndtype: float32\nseed: 3"),
        ("factor: 4", "factor: 5"),
        ("{kind: clamp, feature: 7, to: 1.5}", "{kind: ablate, feature: 7}"),
        ('{kind: ablate, feature: 9, label: "old"}', "{kind: floor, feature: 11, at: 2}"),
        ('prompts: ["one", "two"]', 'prompts: ["one"]\ncalibration: {tokens: 1024}'),
    )
    found = diff(a, b, progress=False)
    assert [str(change) for change in found.changes] == [
        "base: revision: v1 → v2",
        "precision: dtype: auto → float32",
        "edits: after layer 2: scale (feature 5): factor 4 → 5",
        "edits: after layer 2: clamp (feature 7, to 1.5, when always) → ablate (feature 7)",
        "edits: after layer 2: gone: ablate (feature 9)",
        "edits: after layer 2: new: floor (feature 11, at 2)",
        "text: calibration.tokens: 20000 → 1024",
        "text: prompts: 2 → 1, of which 1 are the same",
        "seed: seed: 0 → 3",
    ]


STEERS = {
    "a vector": "vector: {path: v.safetensors}",
    "a contrast": "contrast: {positive: [a, b], negative: [c, d]}",
}


@pytest.mark.parametrize("direction", STEERS.values(), ids=list(STEERS))
def test_a_changed_strength_under_another_label(tmp_path: Path, direction: str) -> None:
    for name, strength in (("a", 4), ("b", 8)):
        edit = f"{{kind: steer, {direction}, strength: {strength}, label: {name}}}"
        splices = f"splices: [{{after_layer: 2, edits: [{edit}]}}]"
        (tmp_path / f"{name}.yaml").write_text(f"base_model: me/base\n{splices}\n")
    (change,) = diff(tmp_path / "a.yaml", tmp_path / "b.yaml", progress=False).changes
    assert "strength 4 → 8" in change.change
    assert "label a → b" in change.change


def test_a_model_and_a_copy(original: Published, published: Published) -> None:
    found = diff(original.folder, published.folder, progress=False)
    assert found.same
    assert found.compared > 0
    assert "inserted tensors alike" in found.verdict


def test_changes_of_models(original: Published, published: Published) -> None:
    name = "model.layers.2.mlp.down_proj.weight"
    published.edit_tensor(name, lambda tensor: tensor.mul_(2))
    recipe = published.folder / "reproduce/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("strength: 3", "strength: 4"))
    published.edit_json("reproduce/environment.json", lambda record: record.update(cpu="Other"))
    found = diff(original.folder, published.folder, progress=False)
    assert not found.same
    abouts = [change.about for change in found.changes]
    assert abouts == ["edits", "environment"]
    assert "strength" in found.changes[0].change
    assert found.changes[1].change.endswith("→ Other")
    (tensor,) = found.tensors
    assert tensor.name == name
    assert f"1 of {found.compared} inserted tensors" in found.verdict


def test_a_recipe_and_a_model_do_not_compare(tmp_path: Path, original: Published) -> None:
    a, _ = recipes(tmp_path)
    with pytest.raises(RecipeError, match=r"is a recipe, and .* reproduce/recipe\.yaml"):
        diff(a, original.folder, progress=False)


def test_the_command(command: Command, tmp_path: Path) -> None:
    a, b = recipes(tmp_path, ("factor: 4", "factor: 5"))
    code, out, err = command("diff", a, b)
    assert code == 0, err
    assert "factor 4 → 5" in out
    code, out, _ = command("diff", a, b, "--json")
    assert json.loads(out)["same"] is False
