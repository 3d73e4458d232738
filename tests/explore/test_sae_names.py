"""SAEs by what people call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubsplice.explore.sae_names import PlacedSae, sae_source
from hubsplice.features.references import SaeSource
from hubsplice.intervention.place import Place

NAME = "gemma-2-2b/20-gemmascope-res-16k"
CANONICAL = "layer_20/width_16k/canonical"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (NAME, {"neuronpedia": NAME}),
        (f"https://www.neuronpedia.org/{NAME}/123", {"neuronpedia": NAME}),
        (
            f"gemma-scope-2b-pt-res-canonical/{CANONICAL}",
            {"release": "gemma-scope-2b-pt-res-canonical", "id": CANONICAL},
        ),
        ("me/my-saes", {"repo_id": "me/my-saes"}),
        ("me/my-saes/layer_3/a", {"repo_id": "me/my-saes", "subfolder": "layer_3/a"}),
    ],
)
def test_names(name: str, fields: dict[str, Any]) -> None:
    assert sae_source(name) == SaeSource(**fields)


def test_a_folder_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / NAME).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert sae_source(NAME) == SaeSource(path=tmp_path / NAME)


def test_a_feature_has_a_page_where_the_sae_is_on_neuronpedia() -> None:
    sae: Any = None
    known = PlacedSae(SaeSource(neuronpedia=NAME), Place(20), sae, NAME)
    assert known.link(7) == f"https://www.neuronpedia.org/{NAME}/7"
    assert PlacedSae(SaeSource(path=Path("x")), Place(20), sae).link(7) is None
