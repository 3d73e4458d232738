"""Recipes made in Python are held to the rules of YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import hubsplice
from hubsplice.features.references import SaeSource
from hubsplice.interface.sources import as_recipe
from hubsplice.recipe.models import Splice


def test_python_and_yaml_give_the_same_recipe(fields: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    recipe = hubsplice.Recipe(**fields)
    assert hubsplice.load_recipe(path) == recipe
    assert hubsplice.load_recipe(str(path)) == recipe
    assert as_recipe(fields) == as_recipe(recipe) == recipe


def test_a_recipe_is_written_and_read_back(fields: dict[str, Any], tmp_path: Path) -> None:
    recipe = hubsplice.Recipe(**fields)
    text = hubsplice.dump_recipe(recipe, tmp_path / "out.yaml")
    assert (tmp_path / "out.yaml").read_text(encoding="utf-8") == text
    assert hubsplice.load_recipe(tmp_path / "out.yaml") == recipe
    with pytest.raises(hubsplice.OutputError, match="cannot be written"):
        hubsplice.dump_recipe(recipe, tmp_path / "missing/out.yaml")


def test_paths_parts_and_numbers_of_other_libraries(fields: dict[str, Any], sae: Path) -> None:
    scale = {"kind": "scale", "feature": np.int64(3), "factor": torch.tensor(4.0)}
    splice = Splice(sae=SaeSource(path=sae), edits=[scale | {"label": "<b>three</b>"}])
    given = fields | {"base_model": Path(fields["base_model"]), "splices": (splice,)}
    assert hubsplice.Recipe(**given) == hubsplice.Recipe(**fields)


def test_relative_paths_are_relative_to_the_current_folder(
    fields: dict[str, Any], base: Path, sae: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    relative = fields | {"base_model": base.name}
    recipe = as_recipe(relative)
    assert recipe.base_model == str(base)
    monkeypatch.chdir(sae.parent)
    (splice,) = as_recipe(fields | {"splices": [{"sae": {"path": Path(sae.name)}}]}).splices
    assert splice.sae == SaeSource(path=sae)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splices": []}, "splices: found [], expected at least 1 of them"),
        ({"colour": 1}, "colour: no such field"),
        ({"seed": "1"}, "seed: found '1', expected a whole number"),
        ({"seed": True}, "seed: found True, expected a whole number"),
        ({"splices": [{"after_layer": 1, "edits": [{"kind": "ablat"}]}]}, "Did you mean 'ablate'"),
        ({"seed": object()}, "seed: found <object object"),
    ],
)
def test_a_mistake_is_a_recipe_error(
    fields: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(hubsplice.RecipeError) as caught:
        hubsplice.Recipe(**fields | change)
    assert message in str(caught.value)


def test_what_is_no_recipe_is_a_recipe_error() -> None:
    with pytest.raises(hubsplice.RecipeError, match="found 3, expected a recipe"):
        as_recipe(3)  # type: ignore[arg-type]


def test_a_recipe_shows_what_was_written(fields: dict[str, Any]) -> None:
    recipe = hubsplice.Recipe(**fields)
    assert hubsplice.Recipe(**yaml.safe_load(str(recipe))) == recipe
    assert "sink_multiple" not in str(recipe)
    assert "&lt;b&gt;three" in recipe._repr_html_()
