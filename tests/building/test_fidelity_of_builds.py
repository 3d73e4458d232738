"""A built folder, loaded by transformers alone, does what the hook on the base does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.saved import INTERVENTION, load_intervention
from hubsplice.recipe.reading import parse_recipe
from hubsplice.streams.model import hooked
from hubsplice.text.sequences import load_sequences
from hubsplice.text.tokenizer import load_tokenizer
from tests.building.conftest import GATED, STEER, Build, Workshop

EDITS = {
    "ablate": "[{kind: ablate, feature: 3}, {kind: scale, feature: 4, factor: 3}]",
    "clamp": "[{kind: clamp, feature: 3, to: 4}, {kind: cap, feature: 5, at: 0.2}]",
    "where active": (
        "[{kind: clamp, feature: 3, to: 4, when: active}, "
        "{kind: gated_steer, feature: 5, strength: 2}]"
    ),
    "project": "[{kind: project, vector: {path: v.safetensors}}]",
    "gate of a probe": (
        "[{kind: gated_steer, vector: {path: v.safetensors}, strength: 0.3 x norm, "
        "gate: {probe: {path: probe.safetensors}}}]"
    ),
}


def splice(sae: str, edits: str, layer: int = 1) -> str:
    return f"  - {{after_layer: {layer}, sae: {{path: {sae}}}, edits: {edits}}}"


@pytest.fixture(scope="session")
def held_out(workshop: Workshop) -> Tensor:
    """Tokens that neither calibration nor the build's own measurement drew: another seed."""
    recipe = parse_recipe(workshop.recipe(STEER), folder=workshop.folder)
    tokenizer = load_tokenizer(workshop.bases["llama"])
    return load_sequences(recipe.fidelity, tokenizer, seed=5, part="held-out").ids


def logits(
    folder: Path, ids: Tensor, hook: Intervention | None = None, *, dtype: str = "auto"
) -> Tensor:
    """Of stock transformers, shape [tokens, vocabulary]; `hook` is applied on the way."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    with torch.inference_mode(), hooked(model, hook or Intervention(())):
        found: Tensor = model(ids).logits
    return found.flatten(end_dim=1)


def assert_edited_alike(base: Path, built: Path, ids: Tensor) -> None:
    """The splice's error is small against the edit's effect, in the mean and at nearly all tokens.

    One token in a hundred may be off: a jump of φ is a steep ramp in weights, and a token that
    lies on it is neither edited nor not.
    """
    plain = logits(base, ids)
    hook = logits(base, ids, load_intervention(built / INTERVENTION))
    spliced = logits(built, ids)
    effect = (hook - plain).abs().amax(dim=-1)
    error = (spliced - hook).abs().amax(dim=-1)
    assert effect.max() > 0.3
    assert error.mean() < 0.03 * effect.mean()
    assert error.quantile(0.99) < 0.03 * effect.max()


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("sae", ["standard", "jumprelu"])
def test_edits_act_as_the_hook(
    workshop: Workshop, make: Build, held_out: Tensor, tmp_path: Path, sae: str, edits: str
) -> None:
    built = make(splice(sae, edits), tmp_path / "out", measure=False).folder
    assert_edited_alike(workshop.bases["llama"], built, held_out)


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_other_families_act_as_the_hook(
    workshop: Workshop, make: Build, held_out: Tensor, tmp_path: Path, family: str
) -> None:
    edits = splice("jumprelu", EDITS["ablate"])
    built = make(edits, tmp_path / "out", base=family, measure=False).folder
    assert_edited_alike(workshop.bases[family], built, held_out)


def test_a_constant_edit_is_exact_in_float32(
    workshop: Workshop, make: Build, held_out: Tensor, tmp_path: Path
) -> None:
    built = make(STEER, tmp_path / "out", measure=False).folder
    base, hook = workshop.bases["llama"], load_intervention(built / INTERVENTION)
    plain, hooked_logits = logits(base, held_out), logits(base, held_out, hook)
    assert (hooked_logits - plain).abs().max() > 1
    torch.testing.assert_close(logits(built, held_out), hooked_logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", [2, 3])
def test_several_splices_in_one_recipe(
    workshop: Workshop, make: Build, held_out: Tensor, tmp_path: Path, count: int
) -> None:
    # Not in the order of their layers, which is the order that they act in.
    splices = [
        splice("jumprelu", EDITS["clamp"], layer=3),
        splice("standard", EDITS["ablate"], layer=0),
        STEER,
    ][:count]
    result = make("\n".join(splices), tmp_path / "out")
    assert result.report is not None
    assert len(result.report.precisions[0].sites) == count
    assert_edited_alike(workshop.bases["llama"], result.folder, held_out)


@pytest.mark.parametrize("base", ["llama", "qwen2", "bfloat16"])
def test_no_edits_change_no_bit(
    workshop: Workshop, make: Build, held_out: Tensor, tmp_path: Path, base: str
) -> None:
    splices = "  - {after_layer: 0}\n  - {after_layer: 3, edits: []}"
    built = make(splices, tmp_path / "out", base=base).folder
    assert torch.equal(logits(built, held_out), logits(workshop.bases[base], held_out))


def test_in_bfloat16_a_splice_is_as_near_the_exact_hook_as_the_hook_itself(
    workshop: Workshop, bfloat16_build: Path, held_out: Tensor
) -> None:
    base, hook = workshop.bases["bfloat16"], load_intervention(bfloat16_build / INTERVENTION)
    exact = logits(base, held_out, hook, dtype="float32")
    effect = exact - logits(base, held_out, dtype="float32")
    served = logits(bfloat16_build, held_out)
    assert served.dtype is torch.bfloat16
    noise, error = logits(base, held_out, hook) - exact, served - exact
    assert effect.norm() > 5 * noise.norm()
    assert error.norm() < 1.5 * noise.norm()


def test_a_spliced_model_is_spliced_again(
    workshop: Workshop, make: Build, held_out: Tensor, tmp_path: Path
) -> None:
    first = make(STEER, tmp_path / "first", measure=False).folder
    # Layer 3 of the first result is the layer that was inserted after the base's layer 2.
    again = make(splice("standard", EDITS["ablate"], layer=3), tmp_path / "again", base=first)
    assert any("spliced model itself" in warning for warning in again.warnings)
    assert_edited_alike(first, again.folder, held_out)


def test_the_reference_is_the_recipe_and_not_what_was_compiled(
    make: Build, held_out: Tensor, workshop: Workshop, tmp_path: Path
) -> None:
    """Ablation, written down anew from the SAE's own tensors."""
    from safetensors.torch import load_file

    built = make(
        splice("standard", "[{kind: ablate, feature: 3}]"), tmp_path / "out", measure=False
    ).folder
    sae = load_file(workshop.folder / "standard/sae_weights.safetensors")

    def ablate(_module: Any, _inputs: Any, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        p = (h - sae["b_dec"]) @ sae["W_enc"][:, 3] + sae["b_enc"][3]
        edited = h - p.relu()[..., None] * sae["W_dec"][3]
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(workshop.bases["llama"])
    plain = logits(workshop.bases["llama"], held_out)
    model.model.layers[1].register_forward_hook(ablate)
    with torch.inference_mode():
        expected = model(held_out).logits.flatten(end_dim=1)
    effect, error = expected - plain, logits(built, held_out) - expected
    assert effect.abs().max() > 0.3
    assert error.norm() < 0.02 * effect.norm()


def test_gate_and_direction_from_different_sources(make: Build, tmp_path: Path) -> None:
    report = make(GATED, tmp_path / "out").report
    assert report is not None
    assert report.verdict.startswith("In float32")
    assert report.precisions[0].effect_over_error is not None
    assert report.precisions[0].effect_over_error > 100
