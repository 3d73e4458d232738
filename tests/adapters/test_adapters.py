"""An adapter on a carrier: the layer that a direct build inserts, said in another way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hubsplice.adapters.attached import attached
from hubsplice.adapters.carrier import Carrier
from hubsplice.adapters.opened import OpenAdapter
from hubsplice.adapters.peft_files import FINGERPRINT
from hubsplice.building.measure import measure
from hubsplice.checkpoint.companions import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CARD,
    CONFIG,
    MANIFEST,
    WEIGHTS_INDEX,
)
from hubsplice.checkpoint.manifest import read_manifest, write_manifest
from hubsplice.errors import CheckpointError, RecipeError, UnsupportedError
from tests.adapters.conftest import EDITS, Built, adapt, carry, merged_with
from tests.building.conftest import Workshop, build_text, quiet
from tests.families.logits import same_bits


def load(folder: Path, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def tokens() -> torch.Tensor:
    return torch.randint(3, 300, (4, 64), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(tokens()).logits
    return found


def divergence(truth: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL in nats of every token."""
    p, q = truth.double().log_softmax(-1), other.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def test_peft_gives_the_logits_of_a_direct_build(built: Built) -> None:
    peft = pytest.importorskip("peft")
    direct = logits(load(built.direct, torch.float32))
    base = logits(load(built.base, torch.float32))
    model = load(built.carrier, torch.float32)
    assert same_bits(logits(model), base)
    adapted = logits(peft.PeftModel.from_pretrained(model, built.adapter))
    with (
        torch.no_grad(),
        attached(carrier := load(built.carrier, torch.float32), built.opened, built.changes),
    ):
        assert (logits(carrier) - adapted).abs().max() < 1e-4
    effect, error = divergence(direct, base).mean(), divergence(direct, adapted).mean()
    assert effect > 0.05
    # Random streams of 64 channels hold no constant that a quiet bias would leave to be read.
    assert error < (1e-5 if built.exact else 0.5) * effect


def test_merging_gives_the_direct_build(built: Built, tmp_path: Path) -> None:
    merged = merged_with(built.opened, built.adapter, tmp_path / "merged")
    assert not merged.differs
    names = [p.name for p in built.direct.glob("*.safetensors")]
    for name in (*names, CONFIG, WEIGHTS_INDEX):
        assert (merged.folder / name).read_bytes() == (built.direct / name).read_bytes(), name
    found, expected = (read_manifest(f / MANIFEST) for f in (merged.folder, built.direct))
    assert found.layers == expected.layers
    assert found.zero_tensors == expected.zero_tensors
    assert found.layer_map == expected.layer_map


def test_an_adapter_is_measured_as_it_is_served(built: Built) -> None:
    report = built.result.report
    assert report is not None
    exact = report.precisions[-1]
    assert exact.dtype == "float32"
    if built.exact:
        assert exact.effect_over_error is not None
        assert exact.effect_over_error > 1e3


def test_an_adapter_is_measured_again(built: Built, tmp_path: Path) -> None:
    if not built.exact:
        pytest.skip("one precision is enough")
    folder = shutil.copytree(built.adapter, tmp_path / "adapter")
    options: dict[str, Any] = {"base": str(built.base), "require_fidelity": None}
    with pytest.raises(RecipeError, match="--carrier: the adapter is for carrier"):
        measure(folder, **options, progress=quiet)
    report = measure(folder, **options, progress=quiet, carrier=built.opened)
    assert built.result.report is not None
    assert report.precisions == built.result.report.precisions
    assert "LoRA adapter" in (folder / CARD).read_text()


def test_an_adapter_for_another_carrier_is_refused(
    built: Built, workshop: Workshop, tmp_path: Path
) -> None:
    other = carry(built.base, tmp_path / "other", 1, slots=64)
    with pytest.raises(CheckpointError, match="another carrier"):
        OpenAdapter.open(built.adapter, Carrier.open(other))
    # Not by the manifest alone.
    forged = shutil.copytree(built.adapter, tmp_path / "forged")
    manifest = read_manifest(forged / MANIFEST)
    assert manifest.carrier is not None
    record = manifest.carrier.model_copy(update={"fingerprint": Carrier.open(other).fingerprint})
    (forged / MANIFEST).unlink()
    write_manifest(manifest.model_copy(update={"carrier": record}), forged)
    with pytest.raises(CheckpointError, match="fingerprint"):
        OpenAdapter.open(forged, Carrier.open(other))


@pytest.mark.parametrize("change", ["row", "slot", "module", "scale"])
def test_what_an_adapter_holds_beside_its_edit_is_found(
    built: Built, tmp_path: Path, change: str
) -> None:
    folder = shutil.copytree(built.adapter, tmp_path / "altered")
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    metadata = {"format": "pt", FINGERPRINT: built.opened.fingerprint}
    gate = next(name for name in tensors if "gate_proj.lora_B" in name)
    rank = tensors[gate].shape[1]
    if change == "row":
        # A second constant, in a row of attention's that no layer has.
        tensors[next(n for n in tensors if "o_proj.lora_A" in n)][rank - 1, 3] = 1.0
    elif change == "slot":
        tensors[gate][-1, 1] = 1.0
    elif change == "module":
        tensors |= {n.replace("layers.2.", "layers.1."): t.clone() for n, t in tensors.items()}
    else:
        config = json.loads((folder / ADAPTER_CONFIG).read_text()) | {"lora_alpha": 2 * rank}
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata)
    with pytest.raises(CheckpointError, match=r"holds more|no change of|lora_alpha"):
        merged_with(built.opened, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_edits_without_room_are_refused_with_what_fits(workshop: Workshop, tmp_path: Path) -> None:
    small = carry(workshop.bases["llama"], tmp_path / "small", 1, slots=8)
    with pytest.raises(UnsupportedError, match=r"terms fit .*--after-layer 1 --slots \d+"):
        adapt(workshop, workshop.recipe(EDITS), small, tmp_path / "adapter")
    elsewhere = carry(workshop.bases["llama"], tmp_path / "elsewhere", 2)
    with pytest.raises(UnsupportedError, match=r"no empty layer after 1; .*--after-layer 1,2"):
        adapt(workshop, workshop.recipe(EDITS), elsewhere, tmp_path / "adapter")
    other = carry(workshop.bases["qwen2"], tmp_path / "other", 1)
    with pytest.raises(CheckpointError, match="its base is qwen2"):
        adapt(workshop, workshop.recipe(EDITS), other, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("ratio", [float("nan"), -1.0])
def test_what_is_no_ratio_is_refused(workshop: Workshop, tmp_path: Path, ratio: float) -> None:
    carrier = carry(workshop.bases["llama"], tmp_path / "carrier", 1)
    with pytest.raises(RecipeError, match="expected a finite number"):
        adapt(
            workshop,
            workshop.recipe(EDITS),
            carrier,
            tmp_path / "adapter",
            measure=True,
            require_fidelity=ratio,
        )


def test_a_carrier_with_more_layers_than_are_edited(workshop: Workshop, tmp_path: Path) -> None:
    base = workshop.bases["llama"]
    carrier = carry(base, tmp_path / "carrier", 0, 1, 2)
    recipe = workshop.recipe(EDITS)
    adapt(workshop, recipe, carrier, tmp_path / "adapter")
    build_text(recipe, tmp_path / "direct", folder=workshop.folder, measure=False)
    merged = merged_with(Carrier.open(carrier), tmp_path / "adapter", tmp_path / "merged")
    direct = {
        n: t for f in (tmp_path / "direct").glob("*.safetensors") for n, t in load_file(f).items()
    }
    found = {n: t for f in merged.folder.glob("*.safetensors") for n, t in load_file(f).items()}
    assert found.keys() == direct.keys()
    assert all(same_bits(found[name], direct[name]) for name in direct)


def test_an_sae_that_normalises_its_input_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    sae = shutil.copytree(workshop.folder / "jumprelu", tmp_path / "normalised")
    config = json.loads((sae / "cfg.json").read_text())
    config["normalize_activations"] = "constant_norm_rescale"
    (sae / "cfg.json").write_text(json.dumps(config))
    carrier = carry(workshop.bases["llama"], tmp_path / "carrier", 1)
    edits = "[{feature: 3, kind: ablate}]"
    recipe = workshop.recipe(f"  - {{after_layer: 1, sae: {{path: {sae}}}, edits: {edits}}}")
    with pytest.raises(UnsupportedError, match=r"normalises its input .*merged checkpoint"):
        adapt(workshop, recipe, carrier, tmp_path / "adapter", allow_misfit=True)
    assert not (tmp_path / "adapter").exists()
