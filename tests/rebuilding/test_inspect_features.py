"""The features of a named SAE that a model's edits are nearest to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubsplice.errors import HubspliceError, RecipeError
from hubsplice.interface.inspect import inspect
from tests.building.conftest import save_sae
from tests.conftest import Command
from tests.rebuilding.conftest import Published


def test_the_nearest_feature_is_the_declared_one(original: Published, command: Command) -> None:
    sae = original.sources / "jumprelu"
    found = {edit.label: edit for edit in inspect(original.folder, sae=sae).features}
    (ablated,) = [edit for label, edit in found.items() if label.startswith("ablate")]
    assert (ablated.declared, ablated.as_declared) == (3, True)
    assert ablated.reads is not None
    assert ablated.reads.feature == ablated.writes.feature == 3
    assert ablated.reads.cosine == pytest.approx(1, abs=1e-5)
    assert abs(ablated.writes.cosine) == pytest.approx(1, abs=1e-5)
    # Vectors are no features, and a random one is near to none.
    (steered,) = [edit for label, edit in found.items() if label.startswith("steer")]
    assert (steered.declared, steered.reads, steered.as_declared) == (None, None, None)
    assert abs(steered.writes.cosine) < 0.6

    shown = command("inspect", original.folder, "--sae", sae)
    assert shown.code == 0, shown.err
    assert "Nearest features of the SAE" in shown.out
    assert "another one" not in shown.out
    assert json.loads(command("inspect", original.folder, "--json").out)["features"] == []


def test_another_feature_than_the_declared_one_is_marked(
    published: Published, command: Command
) -> None:
    def claim(manifest: dict[str, object]) -> None:
        text = json.dumps(manifest).replace('"feature": 3', '"feature": 4')
        manifest.update(json.loads(text))

    published.edit_json("splice.json", claim)
    shown = command("inspect", published.folder, "--sae", published.sources / "jumprelu")
    assert shown.code == 0, shown.err
    assert "3 (another one)" in shown.out


def test_what_is_no_sae(original: Published, tmp_path: Path) -> None:
    for name, message in {
        "nowhere": "expected a folder, Neuronpedia's",
        "a/": "expected a folder, Neuronpedia's",
        "./nowhere/x": "nowhere/x' is not a folder",
        "/nowhere": "'/nowhere' is not a folder",
    }.items():
        with pytest.raises(HubspliceError, match=message):
            inspect(original.folder, sae=name)
    save_sae(tmp_path / "wider", "standard", d_in=128)
    with pytest.raises(RecipeError, match="d_in is 128; expected 64"):
        inspect(original.folder, sae=tmp_path / "wider")
