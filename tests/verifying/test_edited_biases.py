"""Constant edits in biases of existing layers: built, held against the hook, and verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hubsplice.compiling.carrying import in_bias
from hubsplice.errors import RecipeError
from hubsplice.families.architecture import architecture_of
from hubsplice.intervention.place import Place
from hubsplice.intervention.saved import INTERVENTION, load_intervention
from hubsplice.recipe.reading import parse_recipe
from hubsplice.streams.model import hooked, loaded
from tests.building.conftest import GATED
from tests.verifying.conftest import Build, Spliced, Workshop

STEER = """
  - after_layer: 2
    sinks: edit
    edits:
      - {kind: steer, vector: {path: v.safetensors}, strength: 3}
      - {kind: steer, vector: {path: v.safetensors}, strength: 1.3}
"""
BIAS = "model.layers.2.mlp.down_proj.bias"


@pytest.fixture(scope="module")
def made(make: Build, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Spliced:
    """Measured, in bfloat16; not to be changed."""
    folder = tmp_path_factory.mktemp("biases") / "made"
    return Spliced(make(STEER, folder, base="bfloat16").folder, workshop.bases["bfloat16"])


@torch.inference_mode()
def logits(folder: Path, edited: Path | None = None) -> torch.Tensor:
    """Of random tokens in float32, with the hook of a build or without."""
    ids = torch.randint(0, 96, (4, 32), generator=torch.Generator().manual_seed(5))
    with loaded(folder, torch.float32) as model:
        if edited is None:
            return model(ids).logits
        with hooked(model, load_intervention(edited / INTERVENTION)):
            return model(ids).logits


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_every_token_gets_the_constant(
    workshop: Workshop, make: Build, tmp_path: Path, family: str
) -> None:
    folder = make(STEER, tmp_path / "out", base=family, measure=False).folder
    base = workshop.bases[family]
    wanted = logits(base, folder)
    assert (wanted - logits(base)).abs().max() > 1
    torch.testing.assert_close(logits(folder), wanted, rtol=0, atol=1e-4)


def test_no_layer_is_added(made: Spliced) -> None:
    manifest = made.json("splice.json")
    assert manifest["layer_map"] == [{"base": i} for i in range(4)]
    assert manifest["layers"] == []
    assert made.json("config.json")["num_hidden_layers"] == 4
    (bias,) = manifest["biases"]
    assert (bias["site"], bias["tensor"], len(bias["terms"])) == (2, BIAS, 2)
    assert BIAS not in manifest["zero_tensors"]
    index = made.json("model.safetensors.index.json")["weight_map"]
    vector = load_file(made.folder / index[BIAS])[BIAS]
    assert vector.dtype is torch.bfloat16
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    assert "1 bias of existing layers; 4 layers became 4" in card


def test_it_is_verified(made: Spliced) -> None:
    assert made.failed() == {}
    found = made.verify()
    assert "nothing else but 1 bias of existing layers and zero biases" in found.verdict
    assert "edited biases" in [check.name for check in found.checks]


def test_another_constant_is_found_out(make: Build, workshop: Workshop, tmp_path: Path) -> None:
    folder = make(STEER, tmp_path / "out", base="bfloat16", measure=False).folder
    spliced = Spliced(folder, workshop.bases["bfloat16"])
    spliced.edit_tensors(lambda t: t[BIAS][7].mul_(1.01), of=BIAS)
    spliced.forge_checksums()
    failed = spliced.failed()
    assert set(failed) == {"edited biases"}
    (problem,) = failed["edited biases"].problems
    assert problem.startswith(BIAS)
    # Declared for another layer, it is a tensor that no splice has.
    spliced.edit_manifest(lambda m: m["biases"][0].update(site=1))
    assert "layer map" in spliced.failed()


def test_beside_an_inserted_layer(make: Build, workshop: Workshop, tmp_path: Path) -> None:
    result = make(f"{GATED}\n{STEER}", tmp_path / "out", base="bfloat16")
    spliced = Spliced(result.folder, workshop.bases["bfloat16"])
    manifest = spliced.json("splice.json")
    assert manifest["layer_map"][2] == {"splice": 0}
    assert manifest["biases"][0]["tensor"] == "model.layers.3.mlp.down_proj.bias"
    assert result.report is not None
    assert [site.layer for site in result.report.precisions[0].sites] == [1]
    assert spliced.failed() == {}


SKIP = "{kind: steer, vector: {path: v.safetensors}, strength: 3}"
READS = "{kind: ablate, feature: 3}"


def splice(workshop: Workshop, edit: str, **options: Any) -> Any:
    lines = "".join(f"\n    {name}: {value}" for name, value in options.items())
    text = workshop.recipe(
        f"  - after_layer: 1\n    sae: {{path: jumprelu}}\n    edits: [{edit}]{lines}"
    )
    return parse_recipe(text, folder=workshop.folder).splices[0]


CASES: dict[str, tuple[str, dict[str, str], dict[str, Any], str]] = {
    "sinks": (SKIP, {}, {"model_type": "llama"}, "attention sinks as well"),
    "token": (READS, {"sinks": "edit"}, {"model_type": "llama"}, "edits[0] (ablate) depends"),
    "family": (SKIP, {"sinks": "edit"}, {"model_type": "qwen3"}, "Qwen3ForCausalLM has no bias"),
    "taken": (
        SKIP,
        {"sinks": "edit"},
        {"model_type": "llama", "mlp_bias": True},
        "LlamaForCausalLM has no bias",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_where_a_bias_is_another_edit_auto_inserts_a_layer_and_bias_refuses(
    workshop: Workshop, case: str
) -> None:
    edit, options, config, words = CASES[case]
    architecture = architecture_of(config)
    assert not in_bias(splice(workshop, edit, **options), Place(1), architecture)
    with pytest.raises(RecipeError) as refused:
        in_bias(splice(workshop, edit, construction="bias", **options), Place(1), architecture)
    (line,) = str(refused.value).splitlines()
    assert line.startswith("construction: bias: ")
    assert words in line


def test_a_layer_can_be_asked_for(workshop: Workshop) -> None:
    llama = architecture_of({"model_type": "llama"})
    assert in_bias(splice(workshop, SKIP, sinks="edit"), Place(1), llama)
    assert in_bias(splice(workshop, SKIP, sinks="edit", construction="bias"), Place(1), llama)
    assert not in_bias(splice(workshop, SKIP, sinks="edit", construction="layer"), Place(1), llama)
