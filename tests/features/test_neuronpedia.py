"""SAEs as Neuronpedia names them: every name of SAELens's registry, near misses, addresses."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from hubsplice.errors import RecipeError, UnsupportedError
from hubsplice.features.neuronpedia import NeuronpediaName, page, parse_name
from hubsplice.features.references import SaeSource
from hubsplice.features.sae_config import find_sae
from hubsplice.features.sae_match import site_place
from hubsplice.features.sae_registry import RegistryEntry, neuronpedia_entry, registry_entry
from hubsplice.intervention.place import Place

NAME = "gemma-2-2b/20-gemmascope-res-16k"


def registered() -> list[tuple[str, str, str]]:
    """Every name with its release and id, read here by other means than the package's."""
    spec = importlib.util.find_spec("sae_lens")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    text = (Path(spec.submodule_search_locations[0]) / "pretrained_saes.yaml").read_text("utf-8")
    loaded = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return [
        (sae["neuronpedia"], release, sae["id"])
        for release, entry in loaded.items()
        for sae in entry["saes"]
        if "neuronpedia" in sae
    ]


def _refusal(entry: RegistryEntry) -> str | None:
    try:
        entry.require_supported()
    except UnsupportedError as error:
        return str(error)
    return None


def test_every_name_is_one_sae_or_is_refused_with_the_reason() -> None:
    names = registered()
    assert len(names) > 2000
    assert all(count == 1 for count in Counter(name for name, _, _ in names).values())
    refused = 0
    for name, release, sae_id in names:
        entry = neuronpedia_entry(SaeSource(neuronpedia=name).neuronpedia or "")
        assert (entry.release, entry.id, entry.neuronpedia) == (release, sae_id, name)
        assert registry_entry(release, sae_id) == entry
        # Neuronpedia's own names say where an SAE reads; this one alone says it wrongly.
        reads_the_stream = name == "pythia-70m-deduped/e-att-sm" or (
            re.search(r"/.*(\bresid|\bres\b|\bres_)", name) is not None and "temporal" not in name
        )
        assert (_refusal(entry) is None) == reads_the_stream, name
        refused += not reads_the_stream
    assert refused > 400


def test_the_release_the_id_and_the_place_follow() -> None:
    found = find_sae(SaeSource(neuronpedia=NAME))
    assert found.source == SaeSource(
        release="gemma-scope-2b-pt-res-canonical", id="layer_20/width_16k/canonical"
    )
    assert found.neuronpedia == NAME
    assert (found.config.d_in, found.config.d_sae) == (2304, 16384)
    assert site_place(found.config, None) == Place(20)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gemma-2-2b/20-gemmascope-res-16", "the SAE of gemma-2-2b: .*Did you mean '20-gemmascop"),
        ("gemma-2-2b/27-gemmascope-res-16k", r"Did you mean '\d+-gemmascope-res-16k'"),
        ("gpt2-smal/5-res-jb", "the model: 'gpt2-smal' is not known. Did you mean 'gpt2-small'"),
    ],
)
def test_near_misses_are_of_the_same_model(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        find_sae(SaeSource(neuronpedia=name))


def test_an_sae_elsewhere_is_refused_before_anything_is_fetched() -> None:
    with pytest.raises(UnsupportedError, match="MLP's output"):
        find_sae(SaeSource(neuronpedia="gemma-2-2b/20-gemmascope-mlp-16k"))


@pytest.mark.parametrize(
    "text",
    [
        f"{NAME}/1234",
        f"https://www.neuronpedia.org/{NAME}/1234",
        f"https://neuronpedia.org/{NAME}/1234/?embed=true#top",
        f"http://www.neuronpedia.org/api/feature/{NAME}/1234",
        f"www.neuronpedia.org/{NAME}/1234",
    ],
)
def test_names_and_addresses_of_a_feature(text: str) -> None:
    assert parse_name(text) == NeuronpediaName(NAME, 1234)
    assert parse_name(page(NAME, 1234)) == NeuronpediaName(NAME, 1234)
    with pytest.raises(ValidationError, match="which is a feature; expected its SAE"):
        SaeSource(neuronpedia=text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gemma-2-2b",
        f"{NAME}/12x",
        f"{NAME}/-1",
        f"{NAME}/1/2",
        f"{NAME}/{'9' * 5000}",
        f"{NAME}/²",
        f"https://example.com/{NAME}/1",
        "https://[::1",
    ],
)
def test_what_is_no_name_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"found .*, expected "):
        parse_name(text)


def test_an_address_is_taken_as_its_name() -> None:
    assert SaeSource(neuronpedia=page(NAME)).neuronpedia == NAME
