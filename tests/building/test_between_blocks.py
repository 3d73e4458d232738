"""Recipes that edit between a layer's attention and its MLP, from an SAE to a verified model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from hubsplice.streams.model import decoder_layers
from hubsplice.verifying import Run, verify
from hubsplice.verifying.engines import TransformersEngine
from tests.building.conftest import Workshop, build_text, quiet
from tests.conftest import Command
from tests.families.variants import VARIANTS, Variant, save_tiny
from tests.tiny_tokenizer import byte_tokenizer


@pytest.fixture
def sae(workshop: Workshop, tmp_path: Path) -> Path:
    """A copy of the workshop's standard SAE that says that it read the middle of layer 1."""
    module: Any = SAE.load_from_disk(workshop.folder / "standard")
    module.cfg.metadata.hook_name = "blocks.1.hook_resid_mid"
    module.save_model(tmp_path / "sae")
    return tmp_path / "sae"


def splices(sae: Path, vector: Path) -> str:
    """A scaled feature between the blocks of layer 1, and steering after that layer."""
    return f"""
  - {{after_layer: 1, edits: [{{kind: steer, vector: {{path: {vector}}}, strength: 2}}]}}
  - {{sae: {{path: {sae}}}, edits: [{{kind: scale, feature: 3, factor: 3}}]}}
"""


@torch.no_grad()
def edited_by_hand(base: Path, sae: Path, vector: Tensor, ids: Tensor) -> Tensor:
    """The logits of the base with both edits made on what its blocks add to the stream."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    module: Any = SAE.load_from_disk(sae)
    layer = decoder_layers(model)[1]
    entered: list[Tensor] = []

    def enter(_module: nn.Module, args: Any, kwargs: Any) -> None:
        entered.append(args[0] if args else kwargs["hidden_states"])

    def attend(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        activations = module.encode(entered[-1] + output[0])
        return (output[0] + 2 * activations[..., 3:4] * module.W_dec[3], *output[1:])

    def leave(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return output + 2 * vector

    layer.register_forward_pre_hook(enter, with_kwargs=True)
    layer.get_submodule("attn" if hasattr(layer, "attn") else "self_attn").register_forward_hook(
        attend
    )
    layer.register_forward_hook(leave)
    logits: Tensor = model(ids).logits
    return logits


FAMILIES = [
    Variant("llama", {"intermediate_size": 192}),
    Variant("gpt2"),
    next(variant for variant in VARIANTS if variant.family == "qwen3"),
]
"""With one layer more for the edit between the blocks, or two."""


@pytest.mark.parametrize("variant", FAMILIES, ids=str)
def test_an_edit_between_the_blocks_and_one_after_the_layer(
    variant: Variant, workshop: Workshop, sae: Path, tmp_path: Path
) -> None:
    base = save_tiny(variant, tmp_path / "base", torch.float32)
    byte_tokenizer().save_pretrained(base)
    recipe = workshop.recipe(splices(sae, workshop.folder / "v.safetensors"), base=base)
    built = build_text(recipe, tmp_path / "built", folder=tmp_path)
    run = Run(TransformersEngine(), "float32")
    verified = verify(str(built.folder), base=str(base), revision=None, run=run, progress=quiet)
    # In a tiny random gpt2, read-outs are too loose for a proof from the weights.
    assert {check.name for check in verified.checks if not check.passed} <= {"structure"}
    manifest = json.loads((built.folder / "splice.json").read_text())
    assert {"attention": {"base": 1}, "mlp": {"splice": 0}} in manifest["layer_map"]
    *first, steering = manifest["layers"]
    split = variant.family != "llama"
    assert [layer["construction"] for layer in first][:-1] == ["split"] * split
    assert {(layer["site"], layer["block"]) for layer in first} == {(1, "attention")}
    assert (steering["site"], steering["block"]) == (1, "mlp")
    assert "base layer 1" in (built.folder / "README.md").read_text()
    assert built.report is not None
    (served,) = built.report.precisions
    assert [(site.layer, site.block) for site in served.sites] == [(1, "attention"), (1, "mlp")]
    for site in served.sites:
        assert site.edited_tokens > 40
        assert site.overall_residual_error is not None
        # In a random GPT-2, tokens' norms differ more than its read-out of them can tell.
        assert site.overall_residual_error < (5e-2 if variant.family == "gpt2" else 2e-2)
    ids = torch.arange(3, 200, 3)[None]
    vector = load_file(workshop.folder / "v.safetensors")["v"]
    wanted = edited_by_hand(base, sae, vector, ids)
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(base)(ids).logits
        model = AutoModelForCausalLM.from_pretrained(built.folder)
        found = model(ids).logits
    assert len(decoder_layers(model)) == 4 + len(manifest["layers"])
    effect = (wanted - plain).square().mean().sqrt()
    assert (found - wanted).square().mean().sqrt() < 1e-2 * effect


def test_an_edit_of_what_the_first_layer_reads(workshop: Workshop, tmp_path: Path) -> None:
    base = workshop.bases["llama"]
    recipe = workshop.recipe(
        "  - {after_layer: -1, edits: [{kind: steer, strength: 2, vector: {path: v.safetensors}}]}"
    )
    built = build_text(recipe, tmp_path / "built", folder=workshop.folder)
    run = Run(TransformersEngine(), "float32")
    verified = verify(str(built.folder), base=str(base), revision=None, run=run, progress=quiet)
    # In a tiny random gpt2, read-outs are too loose for a proof from the weights.
    assert {check.name for check in verified.checks if not check.passed} <= {"structure"}
    ids = torch.arange(3, 200, 3)[None]
    vector = load_file(workshop.folder / "v.safetensors")["v"]
    with torch.no_grad():
        model: Any = AutoModelForCausalLM.from_pretrained(base)
        plain = model(ids).logits
        wanted = model(inputs_embeds=model.get_input_embeddings()(ids) + 2 * vector).logits
        found = AutoModelForCausalLM.from_pretrained(built.folder)(ids).logits
    assert (found - wanted).abs().max() < 1e-4 * (wanted - plain).abs().max()


@pytest.mark.parametrize(
    ("place", "messages"),
    [
        ("after_attention: 4", ["after_attention: found 4, expected 0 to 3"]),
        ("after_attention: 1, after_layer: 1", ["after_layer: 1 and after_attention: 1", "one of"]),
    ],
)
def test_places_that_are_none(
    command: Command, workshop: Workshop, tmp_path: Path, place: str, messages: list[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(workshop.recipe(f"  - {{{place}}}"), encoding="utf-8")
    outcome = command("check", "recipe.yaml")
    assert outcome.code == 2
    for message in messages:
        assert message in outcome.err
