"""Every family from a recipe to a measured, verified checkpoint that its stock class loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from hubsplice.verifying import Run, verify
from hubsplice.verifying.engines import TransformersEngine
from tests.building.conftest import Workshop, build_text, quiet
from tests.families.variants import GATED, VARIANTS, Variant, save_tiny
from tests.tiny_tokenizer import byte_tokenizer

# One variant of each family, beside those that the other tests of builds use; a NeoX whose blocks
# are parallel takes two layers for a splice.
FAMILIES = list({(v.family, v.fields.get("use_parallel_residual")): v for v in VARIANTS}.values())
FAMILIES.append(Variant("phi3", GATED))


@pytest.mark.parametrize("variant", FAMILIES, ids=str)
def test_from_recipe_to_checkpoint(variant: Variant, workshop: Workshop, tmp_path: Path) -> None:
    base = save_tiny(variant, tmp_path / "base", torch.float32)
    byte_tokenizer().save_pretrained(base)
    recipe = workshop.recipe(
        f"  - {{after_layer: 1, edits: [{{kind: steer, strength: 0.3 x norm, "
        f"vector: {{path: {workshop.folder}/v.safetensors}}}}]}}",
        base=base,
    )
    built = build_text(recipe, tmp_path / "built", folder=tmp_path)
    run = Run(TransformersEngine(), "float32")
    verified = verify(str(built.folder), base=str(base), revision=None, run=run, progress=quiet)
    assert verified.passed, [check for check in verified.checks if not check.passed]
    assert built.report is not None
    (served,) = built.report.precisions
    assert built.report.edit_effect.mean > 1e-4
    assert served.splice_error.mean < 1e-3 * built.report.edit_effect.mean
    model = AutoModelForCausalLM.from_pretrained(built.folder)
    assert type(model).__module__.startswith("transformers.models.")
    assert model(torch.arange(3, 40)[None]).logits.isfinite().all()
