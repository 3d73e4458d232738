"""An SAE that does not fit the base stops a build, unless it is allowed, and is told of then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import hubsplice
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.errors import UnsupportedError
from hubsplice.fidelity.report import read_report
from hubsplice.hub.built import open_built
from tests.building.conftest import Build, Workshop, save_sae
from tests.conftest import Command

D = 64


@pytest.fixture(scope="module")
def saes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `random`, which fits nothing, `exact`, which fits anything, and `scaled`."""
    folder: Path = tmp_path_factory.mktemp("saes")
    save_sae(folder / "random", "standard", d_sae=2 * D)
    both = torch.cat([torch.eye(D), -torch.eye(D)])
    exact: dict[str, Any] = {"W_dec": both, "b_enc": torch.zeros(2 * D), "b_dec": torch.zeros(D)}
    save_sae(folder / "exact", "standard", d_sae=2 * D, W_enc=both.T.contiguous(), **exact)
    save_sae(folder / "scaled", "standard", d_sae=2 * D, W_enc=(10 * both.T).contiguous(), **exact)
    return folder


def splices(sae: Path) -> str:
    return f"  - {{sae: {{path: {sae}}}, edits: [{{kind: ablate, feature: 3}}]}}"


@pytest.mark.parametrize("name", ["random", "scaled"])
def test_a_misfit_is_refused(make: Build, saes: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        make(splices(saes / name), tmp_path / "out", measure=False)
    message = str(caught.value)
    assert message.startswith("splices[0].sae: after layer 1, the SAE explains less than nothing (")
    assert "--allow-misfit" in message
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def allowed(make: Build, saes: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("builds") / "misfit"
    return make(splices(saes / "random"), folder, allow_misfit=True)


def test_an_allowed_misfit_is_told_everywhere(allowed: Any) -> None:
    (warning,) = allowed.warnings
    assert warning.startswith("splices[0].sae: the SAE explains less than nothing")
    report = read_report(allowed.folder)
    calibration = read_manifest(allowed.folder / "splice.json").calibration
    assert report is not None
    assert calibration is not None
    assert report.sae_fit == calibration.sae_fit
    (fit,) = report.sae_fit.values()
    assert fit.misfit
    assert list(fit.features) == ["feature 3"]
    assert report.warnings == (warning,)
    card = (allowed.folder / "README.md").read_text(encoding="utf-8")
    assert "**Warning: an SAE does not fit this base." in card
    assert "after layer 1: the SAE explains less than nothing" in " ".join(str(allowed).split())


def test_publishing_a_misfit_needs_the_option_too(allowed: Any) -> None:
    def opened(**options: Any) -> Any:
        return open_built(
            allowed.folder,
            require_fidelity=None,
            allow_failed=True,
            on_read=lambda _done, _total: None,
            **options,
        )

    with pytest.raises(UnsupportedError, match=r"after layer 1, .*--allow-misfit publishes"):
        opened()
    assert opened(allow_misfit=True).folder == allowed.folder


def test_a_fit_is_not_warned_of(make: Build, saes: Path, tmp_path: Path) -> None:
    built = make(splices(saes / "exact"), tmp_path / "out", measure=False)
    assert built.warnings == ()
    calibration = read_manifest(built.folder / "splice.json").calibration
    assert calibration is not None
    assert calibration.sae_fit["1"].variance_explained == pytest.approx(1.0, abs=1e-4)
    card = (built.folder / "README.md").read_text(encoding="utf-8")
    assert "after layer 1: the SAE explains 100% of the variance" in card
    assert "Warning" not in card


def test_from_python_and_from_the_command_line(
    command: Command, workshop: Workshop, saes: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(workshop.recipe(splices(saes / "random")), encoding="utf-8")
    with pytest.raises(UnsupportedError, match="allow_misfit=True"):
        hubsplice.lower(recipe, progress=False)
    with pytest.warns(UserWarning, match="explains less than nothing"):
        assert hubsplice.lower(recipe, allow_misfit=True, progress=False).sites
    refused = command("build", recipe, "-o", tmp_path / "out", "--no-measure")
    assert refused.code == 3
    built = command(
        *("build", recipe, "-o", tmp_path / "out", "--no-measure", "--allow-misfit", "--json")
    )
    assert built.code == 0
    assert "explains less than nothing" in built.err
    assert json.loads(built.out)["folder"] == str(tmp_path / "out")
