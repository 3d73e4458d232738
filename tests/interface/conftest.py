"""A tiny base and an SAE for it, and the fields of a recipe that names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.building.conftest import save_sae
from tests.conftest import MakeCheckpoint

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def base(shared_tiny_llama: MakeCheckpoint) -> Path:
    return shared_tiny_llama(dtype="bfloat16", name="of-interface-tests")


@pytest.fixture(scope="session")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sae") / "jumprelu"
    save_sae(folder, "jumprelu")
    return folder


@pytest.fixture
def fields(base: Path, sae: Path) -> dict[str, Any]:
    return {
        "base_model": str(base),
        "splices": [
            {
                "sae": {"path": str(sae)},
                "edits": [{"feature": 3, "kind": "scale", "factor": 4, "label": "<b>three</b>"}],
            }
        ],
        "calibration": {"tokens": 512, "sequence_length": 64},
        "fidelity": {"tokens": 256, "sequence_length": 64},
        "card": {"prompts": []},
    }
