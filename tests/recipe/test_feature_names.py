"""Features that a recipe names by their page on Neuronpedia."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubsplice.errors import RecipeError
from hubsplice.features.references import SaeSource
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.reading import parse_recipe

SAE = "gemma-2-2b/20-gemmascope-res-16k"
PAGE = f"https://www.neuronpedia.org/{SAE}"
RELEASED = "{release: gemma-scope-2b-pt-res-canonical, id: layer_20/width_16k/canonical}"


def recipe(edits: str, sae: str = "") -> Recipe:
    text = f"base_model: me/m\nsplices:\n  - edits: [{edits}]\n"
    return parse_recipe(text + (f"    sae: {sae}\n" if sae else ""), folder=Path("/none"))


@pytest.mark.parametrize("sae", ["", f"{{neuronpedia: {SAE}}}", f"{{neuronpedia: '{PAGE}'}}"])
def test_the_sae_follows_from_its_features(sae: str) -> None:
    gated = f"{{kind: gated_steer, feature: 3, strength: 1, gate: {{feature: '{PAGE}/7'}}}}"
    splice = recipe(f"{{kind: ablate, feature: '{PAGE}/1234'}}, {gated}", sae).splices[0]
    assert splice.sae == SaeSource(neuronpedia=SAE)
    assert splice.edits[0].feature_indices() == (1234,)
    assert splice.edits[1].feature_indices() == (3, 7)


def test_the_same_sae_by_its_release() -> None:
    splice = recipe(f"{{kind: ablate, feature: {SAE}/1}}", RELEASED).splices[0]
    assert splice.sae is not None
    assert splice.sae.release is not None


@pytest.mark.parametrize(
    ("edits", "sae", "message"),
    [
        (
            f"{{kind: ablate, feature: {SAE}/1}}, {{kind: ablate, feature: gpt2-small/5-res-jb/2}}",
            "",
            r"splices\[0\].edits\[1\].feature: is a feature of gpt2-small/5-res-jb, and "
            r"splices\[0\].edits\[0\].feature is one of gemma",
        ),
        (
            "{kind: ablate, feature: gpt2-small/5-res-jb/2}",
            RELEASED,
            f"and splices.0..sae is {SAE}",
        ),
        (
            "{kind: ablate, feature: gpt2-small/5-res-jb/2}",
            f"{{neuronpedia: {SAE}}}",
            f"and splices.0..sae is {SAE}",
        ),
        (f"{{kind: ablate, feature: {SAE}/1}}", "{path: ./sae}", "give the number, 1"),
        (f"{{kind: ablate, feature: '{PAGE}'}}", "", "an SAE; expected a feature"),
        ("{kind: ablate, feature: 'https://a.b/c/d/1'}", "", "expected an address of https"),
        ("{kind: ablate, feature: '12'}", "{path: ./sae}", "found '12', expected a whole number"),
        (
            f"{{kind: ablate, feature: {SAE}/1}}",
            f"{{neuronpedia: {SAE}/1}}",
            r"splices\[0\].sae.neuronpedia: found .* which is a feature",
        ),
    ],
)
def test_what_does_not_fit_together_is_an_error(edits: str, sae: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(edits, sae)
