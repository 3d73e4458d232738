"""`dataset: sae` means the dataset that the SAE's configuration names."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubsplice.compiling.sae_dataset import with_sae_dataset
from hubsplice.errors import RecipeError
from hubsplice.features.sae_config import SaeConfig, parse_sae_config
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.reading import parse_recipe

PILE = "monology/pile-uncopyrighted"


def recipe(text: str = "fidelity: {dataset: sae}", folder: Path = Path("/nowhere")) -> Recipe:
    splices = "base_model: me/model\nsplices: [{after_layer: 1}]\n"
    return parse_recipe(splices + text, folder=folder)


def sae(dataset: object) -> SaeConfig:
    raw = {"d_in": 8, "d_sae": 32, "metadata": {"dataset_path": dataset}}
    return parse_sae_config(raw, "SAE me/saes")


def test_the_name_stands_in_for_the_sae() -> None:
    found = with_sae_dataset(recipe(), [sae(None), sae(PILE), sae("another/one")])
    assert (found.fidelity.dataset, found.calibration.dataset) == (PILE, "builtin")
    both = recipe("fidelity: {dataset: sae}\ncalibration: {dataset: sae, tokens: 512}")
    found = with_sae_dataset(both, [sae(PILE)])
    assert (found.fidelity.dataset, found.calibration.dataset) == (PILE, PILE)
    assert found.calibration.tokens == 512


def test_nothing_changes_where_the_recipe_says_nothing_of_it() -> None:
    plain = recipe("")
    assert with_sae_dataset(plain, []) is plain


@pytest.mark.parametrize("dataset", [None, 3, ["a", "b"]])
def test_an_sae_that_names_none(dataset: object) -> None:
    with pytest.raises(RecipeError, match=r"fidelity\.dataset: 'sae' means .* names one"):
        with_sae_dataset(recipe(), [sae(dataset)])


def test_an_sae_that_names_what_is_no_dataset_of_the_hub() -> None:
    with pytest.raises(RecipeError, match="'local Debian text' here, as SAE me/saes says"):
        with_sae_dataset(recipe(), [sae("local Debian text")])


def test_a_folder_of_that_name_is_another_thing(tmp_path: Path) -> None:
    (tmp_path / "sae").mkdir()
    assert recipe(folder=tmp_path).fidelity.dataset == "sae"
    local = recipe("fidelity: {dataset: ./sae}", tmp_path).fidelity.dataset
    assert local == str(tmp_path / "sae")
