"""A splice after several layers."""

from __future__ import annotations

import pytest

from hubsplice.errors import RecipeError
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.reading import dump_recipe

STEER = {"kind": "steer", "vector": {"path": "/v.gguf"}, "strength": 1}


def recipe(*splices: object) -> Recipe:
    return Recipe(base_model="me/m", splices=list(splices))


def test_a_list_stands_for_a_splice_after_each_layer() -> None:
    found = recipe({"after_layer": 3}, {"after_layer": [10, 11, 12], "edits": [STEER]})
    assert [splice.after_layer for splice in found.splices] == [3, 10, 11, 12]
    each = [{"after_layer": layer, "edits": [STEER]} for layer in (10, 11, 12)]
    assert found == recipe({"after_layer": 3}, *each)
    assert "after_layer: 12" in dump_recipe(found)


@pytest.mark.parametrize(
    ("splice", "message"),
    [
        ({"after_layer": []}, r"splices\[0\].after_layer: found \[\], expected different layers"),
        ({"after_layer": [4, 4]}, r"found \[4, 4\], expected different"),
        ({"after_layer": [4, "5"]}, r"after_layer: found '5', expected a whole number"),
        ({"after_layer": [4, -2]}, r"after_layer: found -2, expected a number greater"),
        ({"after_layer": [4, 5], "sae": {"path": "/s"}}, "give each SAE a splice of its own"),
        ({"after_attention": [4, 5]}, r"after_attention: found \[4, 5\], expected"),
    ],
)
def test_other_lists_are_errors(splice: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(splice)
