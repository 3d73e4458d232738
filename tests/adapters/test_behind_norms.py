"""Adapters where norms stand behind blocks: the carrier has them, without one channel."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubsplice.adapters.carrier import Carrier
from hubsplice.adapters.opened import OpenAdapter
from hubsplice.building.build import BuildResult
from hubsplice.building.merge import Merged
from hubsplice.errors import UnsupportedError
from hubsplice.verifying.verify import verify
from tests.adapters.conftest import adapt, carry, merged_with
from tests.adapters.test_adapters import divergence, load, logits
from tests.building.conftest import Workshop, quiet
from tests.families.variants import GATED, WINDOWED, Variant, save_tiny
from tests.tiny_tokenizer import byte_tokenizer

EDITS = """
  - after_layer: 1
    sae: {path: jumprelu}
    edits:
      - {feature: 3, kind: clamp, to: 2.0, when: active}
      - {feature: 9, kind: scale, factor: 3.0}
      - {kind: steer, vector: {path: v.safetensors, tensor: v}, strength: STRENGTH}
"""
SIZES = GATED | {"intermediate_size": 256}
KINDS = {
    "sandwich": (Variant("gemma3_text", SIZES | WINDOWED), torch.float32),
    "post-norm": (Variant("olmo2", SIZES), torch.bfloat16),
}


@dataclass(frozen=True)
class Built:
    base: Path
    carrier: Path
    adapter: Path
    merged: Merged
    result: BuildResult

    @property
    def opened(self) -> Carrier:
        return Carrier.open(self.carrier)


@pytest.fixture(
    scope="module", params=["sandwich", pytest.param("post-norm", marks=pytest.mark.slow)]
)
def built(request: Any, workshop: Workshop, tmp_path_factory: Any) -> Built:
    folder: Path = tmp_path_factory.mktemp("behind-norms")
    variant, dtype = KINDS[request.param]
    # Without a mean, nothing of a random stream could be read as a constant.
    base = save_tiny(variant, folder / "base", dtype, mean=0.4)
    byte_tokenizer().save_pretrained(base)
    carrier = carry(base, folder / "carrier", 1)
    recipe = workshop.recipe(EDITS.replace("STRENGTH", "2.0"), base=base)
    result = adapt(workshop, recipe, carrier, folder / "adapter", measure=True)
    merged = merged_with(Carrier.open(carrier), folder / "adapter", folder / "merged")
    return Built(base, carrier, folder / "adapter", merged, result)


def test_peft_gives_what_the_merged_checkpoint_does(built: Built) -> None:
    peft = pytest.importorskip("peft")
    model = load(built.carrier, torch.float32)
    adapted = logits(peft.PeftModel.from_pretrained(model, built.adapter))
    merged, base = (
        logits(load(folder, torch.float32)) for folder in (built.merged.folder, built.base)
    )
    effect = divergence(merged, base).mean()
    assert effect > 0.02
    assert divergence(merged, adapted).mean() < 1e-6 * effect


def test_the_edit_is_made(built: Built) -> None:
    report = built.result.report
    assert report is not None
    exact = report.precisions[-1]
    assert exact.effect_over_error is not None
    # What is written to one of 64 channels is lost.
    assert exact.effect_over_error > 100
    assert "shown" in {edit.outcome for edit in exact.edits}
    assert "fails" not in {edit.outcome for edit in exact.edits}


def test_what_differs_of_a_direct_build_is_said(built: Built) -> None:
    (difference,) = built.merged.differs
    assert "its norms are the carrier's" in difference


def test_all_of_it_is_verified(built: Built) -> None:
    opened = OpenAdapter.open(built.adapter, built.opened)
    assert not list(opened.problems())
    for folder, carrier in (
        (built.carrier, None),
        (built.adapter, built.opened),
        (built.merged.folder, None),
    ):
        found = verify(
            str(folder), base=str(built.base), revision=None, progress=quiet, carrier=carrier
        )
        assert [check for check in found.checks if not check.passed] == []


def test_an_edit_that_is_too_large_is_refused(
    built: Built, workshop: Workshop, tmp_path: Path
) -> None:
    recipe = workshop.recipe(EDITS.replace("STRENGTH", "1.0e+8"), base=built.base)
    with pytest.raises(UnsupportedError, match=r"so large that the norms .*merged checkpoint"):
        adapt(workshop, recipe, built.carrier, tmp_path / "adapter")


def test_edits_without_room_are_refused_with_what_fits(
    built: Built, workshop: Workshop, tmp_path: Path
) -> None:
    small = carry(built.base, tmp_path / "small", 1, slots=8)
    recipe = workshop.recipe(EDITS.replace("STRENGTH", "2.0"), base=built.base)
    with pytest.raises(UnsupportedError, match=r"terms fit .*--after-layer 1 --slots \d+"):
        adapt(workshop, recipe, small, tmp_path / "adapter")


def test_other_norms_than_the_manifests_are_found(built: Built, tmp_path: Path) -> None:
    folder = shutil.copytree(built.carrier, tmp_path / "altered")
    name = "model.layers.2.post_feedforward_layernorm.weight"
    path = next(p for p in folder.glob("*.safetensors") if name in load_file(p))
    tensors = load_file(path)
    tensors[name][-1] *= 2
    save_file(tensors, path, {"format": "pt"})
    found = verify(str(folder), base=str(built.base), revision=None, progress=quiet)
    (check,) = [check for check in found.checks if check.name == "slots"]
    assert check.passed is False
    assert name in str(check.problems)
