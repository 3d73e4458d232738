"""Carriers, adapters for them, and the same recipes built directly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hubsplice.adapters.carrier import Carrier
from hubsplice.adapters.opened import OpenAdapter
from hubsplice.building.adapter import build_adapter
from hubsplice.building.build import BuildResult
from hubsplice.building.carrier import build_carrier
from hubsplice.building.merge import Merged, merge
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.recipe.reading import parse_recipe
from tests.building.conftest import Workshop, build_text, quiet, workshop

__all__ = ["workshop"]

EDITS = """
  - after_layer: 1
    sae: {path: jumprelu}
    edits:
      - {feature: 3, kind: clamp, to: 2.0, when: active}
      - {feature: 5, kind: ablate}
      - {feature: 9, kind: scale, factor: 3.0}
      - {kind: steer, vector: {path: v.safetensors, tensor: v}, strength: 0.5}
"""


@dataclass(frozen=True)
class Built:
    """A carrier of one base, an adapter for it, and the same recipe built directly."""

    base: Path
    carrier: Path
    adapter: Path
    direct: Path
    result: BuildResult

    @property
    def exact(self) -> bool:
        """Whether it was compiled for float32."""
        return read_manifest(self.adapter / MANIFEST).dtype == "float32"

    @property
    def changes(self) -> Any:
        return OpenAdapter.open(self.adapter, self.opened).changes

    @property
    def opened(self) -> Carrier:
        return Carrier.open(self.carrier)


def carry(base: Path, folder: Path, *after_layers: int, slots: int | None = None) -> Path:
    build_carrier(
        str(base),
        None,
        after_layers,
        output=folder,
        total_slots=slots,
        hard_link=False,
        progress=quiet,
    )
    return folder


def merged_with(carrier: Carrier, adapter: Path, output: Path) -> Merged:
    return merge(carrier, adapter, output=output, hard_link=False, progress=quiet)


def adapt(workshop: Workshop, recipe: str, carrier: Path, output: Path, **more: Any) -> BuildResult:
    return build_adapter(
        parse_recipe(recipe, folder=workshop.folder),
        Carrier.open(carrier),
        output=output,
        require_fidelity=more.pop("require_fidelity", None),
        measure=more.pop("measure", False),
        progress=quiet,
        **more,
    )


@pytest.fixture(scope="session", params=["llama", "bfloat16", "qwen3"])
def built(request: Any, workshop: Workshop, shared_tiny_llama: Any, tmp_path_factory: Any) -> Built:
    folder: Path = tmp_path_factory.mktemp("adapters")
    base = (
        shared_tiny_llama("qwen3", name="qwen3", intermediate_size=256)
        if request.param == "qwen3"
        else workshop.bases[request.param]
    )
    carrier = carry(base, folder / "carrier", 1)
    recipe = workshop.recipe(EDITS, base=base)
    result = adapt(workshop, recipe, carrier, folder / "adapter", measure=True)
    build_text(recipe, folder / "direct", folder=workshop.folder, measure=False)
    return Built(base, carrier, folder / "adapter", folder / "direct", result)
