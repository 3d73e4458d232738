"""An adapter on a carrier: the layer that a direct build inserts, said in another way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hubsplice.adapters.carrier import Carrier
from hubsplice.building.adapter import build_adapter
from hubsplice.building.build import BuildResult
from hubsplice.building.carrier import build_carrier
from hubsplice.building.merge import merge
from hubsplice.checkpoint.companions import CONFIG, MANIFEST, WEIGHTS_INDEX
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.recipe.reading import parse_recipe
from tests.building.conftest import Workshop, build_text, quiet
from tests.families.logits import same_bits

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


def adapt(workshop: Workshop, recipe: str, carrier: Path, output: Path, **more: Any) -> BuildResult:
    return build_adapter(
        parse_recipe(recipe, folder=workshop.folder),
        Carrier.open(carrier),
        output=output,
        require_fidelity=None,
        measure=more.pop("measure", False),
        progress=quiet,
        **more,
    )


@pytest.fixture(scope="module", params=["llama", "bfloat16"])
def built(request: Any, workshop: Workshop, tmp_path_factory: Any) -> Iterator[Built]:
    folder: Path = tmp_path_factory.mktemp("adapters")
    base = workshop.bases[request.param]
    carrier = carry(base, folder / "carrier", 1)
    recipe = workshop.recipe(EDITS, base=request.param)
    result = adapt(workshop, recipe, carrier, folder / "adapter", measure=True)
    build_text(recipe, folder / "direct", folder=workshop.folder, measure=False)
    yield Built(base, carrier, folder / "adapter", folder / "direct", result)


def load(folder: Path, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def tokens() -> torch.Tensor:
    return torch.randint(3, 300, (4, 64), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(tokens()).logits
    return found


def test_peft_gives_the_logits_of_a_direct_build(built: Built) -> None:
    peft = pytest.importorskip("peft")
    # What the edits were compiled for in bfloat16 has the same weights in float32.
    direct = logits(load(built.direct, torch.float32)).log_softmax(-1)
    base = logits(load(built.base, torch.float32)).log_softmax(-1)
    model = load(built.carrier, torch.float32)
    assert same_bits(logits(model).log_softmax(-1), base)
    adapted = logits(peft.PeftModel.from_pretrained(model, built.adapter)).log_softmax(-1)
    effect = (direct.exp() * (direct - base)).sum(-1)
    error = (direct.exp() * (direct - adapted)).sum(-1)
    print("effect", effect.mean(), "error", error.mean(), error.max())
    assert effect.mean() > 1e-2
    assert error.mean() < 1e-3 * effect.mean()


def test_merging_gives_the_direct_build(built: Built, tmp_path: Path) -> None:
    merged = merge(
        built.opened, built.adapter, output=tmp_path / "merged", hard_link=False, progress=quiet
    )
    assert not merged.differs
    names = [p.name for p in built.direct.glob("*.safetensors")]
    for name in (*names, CONFIG, WEIGHTS_INDEX):
        assert (merged.folder / name).read_bytes() == (built.direct / name).read_bytes(), name
    found, expected = (read_manifest(f / MANIFEST) for f in (merged.folder, built.direct))
    assert found.layers == expected.layers
    assert found.zero_tensors == expected.zero_tensors
    assert found.layer_map == expected.layer_map
