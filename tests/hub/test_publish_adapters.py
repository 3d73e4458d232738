"""Carriers and adapters on the loopback Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubsplice.adapters.carrier import Carrier
from hubsplice.building.adapter import build_adapter
from hubsplice.recipe.reading import parse_recipe
from tests.adapters.conftest import carry
from tests.building.conftest import quiet
from tests.hub.conftest import TEXT, Publisher
from tests.loopback.client import LoopbackHub


@pytest.fixture
def carrier(base: Path, tmp_path: Path) -> Path:
    return carry(base, tmp_path / "carrier", 1)


def test_both_are_published_and_say_what_they_are_for(
    publish: Publisher, carrier: Path, base: Path, hub: LoopbackHub, tmp_path: Path
) -> None:
    done = publish(carrier, "--repo-id", "me/a-carrier", "--json")
    assert done.code == 0, done.err
    commit = json.loads(done.out)["commit"]
    edits = f"[{{kind: steer, vector: {{path: {base.parent}/vector.safetensors}}, strength: 2}}]"
    recipe = f"base_model: {base}\nsplices:\n  - {{after_layer: 1, edits: {edits}}}\n{TEXT}"
    build_adapter(
        parse_recipe(recipe, folder=tmp_path),
        Carrier.open(carrier, "me/a-carrier", commit),
        output=tmp_path / "adapter",
        require_fidelity=None,
        measure=True,
        progress=quiet,
    )
    done = publish(tmp_path / "adapter", "--repo-id", "me/an-edit", "--json")
    assert done.code == 0, done.err
    serve = "hubsplice serve me/a-carrier --adapters me/an-edit"
    assert json.loads(done.out)["serve"] == serve
    files = hub.files("me/an-edit", "main")
    assert {"adapter_config.json", "adapter_model.safetensors", "splice.json"} <= set(files)
    assert not any(name.startswith("model-") for name in files)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("me/a-carrier", commit)
    card = (tmp_path / "adapter/README.md").read_text()
    assert "base_model: me/a-carrier\n" in card
    assert "base_model_relation: adapter\n" in card
