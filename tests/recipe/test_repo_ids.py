"""Names of repositories: refused when a recipe is read, as the Hub's client does later."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from hubsplice.errors import RecipeError
from hubsplice.recipe.reading import parse_recipe
from hubsplice.recipe.repo_ids import require_repo_id

NAMES = (
    "me/model", "model", "me/My-Model_1.5B", "me/a.b", "m/n", "me/_x", "me/x_", "a" * 96,
    "", "/", "me/", "/model", "me/a/b", "me/a name", "me/é", "me/-x", "me/x-", "me/.x", "me/x.",
    "me/a--b", "me/a..b", "me/a.git", "m\u200be/model", "me/model\n", "a" * 97, "me/" + "b" * 94,
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_same_names_as_the_hubs_client_takes(name: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError:
        with pytest.raises(RecipeError, match=r"publish\.repo_id: .* is no name of a repository"):
            require_repo_id(name, "publish.repo_id")
    else:
        require_repo_id(name, "publish.repo_id")


def test_a_recipe_with_such_a_name_is_refused_where_it_is_read(tmp_path: Path) -> None:
    recipe = "base_model: a/b\nsplices: [{after_layer: 0}]\npublish: {repo_id: me/a name}\n"
    with pytest.raises(RecipeError, match=r"publish\.repo_id: 'me/a name' is no name"):
        parse_recipe(recipe, folder=tmp_path)
