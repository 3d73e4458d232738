"""`serve_with`: a construction that all named engines honour, or a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.errors import RecipeError, UnsupportedError
from hubsplice.families.engines import EngineKey
from hubsplice.families.served import architecture_for
from hubsplice.rebuilding.unsplice import unsplice
from hubsplice.recipe.reading import parse_recipe
from hubsplice.serving.engines import ENGINES
from hubsplice.serving.requirements import Requirements
from hubsplice.serving.verdict import Outcome, verdict
from hubsplice.verifying.inspect import inspect
from hubsplice.verifying.verify import verify
from tests.adapters.conftest import EDITS, adapt, carry
from tests.building.conftest import TEXT, Workshop, build_text, quiet
from tests.families.logits import logits_of, same_bits

BOTH = f"serve_with: [vllm, sglang]\n{TEXT}"


@pytest.fixture(scope="module")
def roomy(shared_tiny_llama: Any) -> Path:
    """A Llama whose layers have neurons enough to square every channel."""
    folder: Path = shared_tiny_llama(name="roomy", intermediate_size=256)
    return folder


@pytest.fixture(scope="module")
def for_both(workshop: Workshop, roomy: Path, tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("served") / "spliced"
    recipe = workshop.recipe(EDITS, base=roomy, more=BOTH)
    result = build_text(recipe, folder, folder=workshop.folder)
    assert result.report is not None
    effect = result.report.precisions[-1].effect_over_error
    assert effect is not None
    assert effect > 100
    return folder


def test_a_llama_is_spliced_without_biases_in_the_mlp(for_both: Path) -> None:
    manifest = read_manifest(for_both / MANIFEST)
    assert manifest.architectures.after == "LlamaForCausalLM"
    assert [layer.construction for layer in manifest.layers] == ["prenorm-bias-free"]
    config = BaseConfig.open(for_both).config
    assert config["attention_bias"] is True
    assert not config.get("mlp_bias")
    outcomes = {
        key: verdict(ENGINES[key], Requirements.of(manifest)).outcome
        for key in (EngineKey.VLLM, EngineKey.SGLANG)
    }
    assert set(outcomes.values()) == {Outcome.WORKS}


def test_it_is_verified_inspected_and_taken_apart(
    for_both: Path, roomy: Path, tmp_path: Path
) -> None:
    found = verify(str(for_both), base=str(roomy), revision=None, progress=quiet)
    assert all(check.passed for check in found.checks), found
    assert inspect(str(for_both), revision=None).agrees
    unsplice(for_both, output=tmp_path / "base", progress=quiet)
    logits = [logits_of(folder, torch.float32) for folder in (tmp_path / "base", roomy)]
    assert same_bits(*logits)


def test_without_such_an_engine_nothing_changes(workshop: Workshop) -> None:
    config = BaseConfig.open(workshop.bases["llama"]).config
    engines = [EngineKey.VLLM, EngineKey.TRANSFORMERS, EngineKey.LLAMA_CPP]
    assert "mlp_bias" in architecture_for(config, engines).switched_on
    assert "mlp_bias" not in architecture_for(config, [EngineKey.SGLANG]).switched_on


@pytest.mark.parametrize(
    ("fields", "engines", "message"),
    [
        ({"mlp_bias": True}, ["vllm", "sglang"], r"SGLang 0\S+ ignores mlp.* name only vllm"),
        ({"model_type": "granite"}, ["sglang"], r"SGLang 0\S+ ignores mlp.*GraniteForCausalLM$"),
        ({"model_type": "olmo2"}, ["vllm", "llama.cpp"], "llama.cpp: nobody has examined"),
    ],
)
def test_what_no_construction_serves_is_refused(
    workshop: Workshop, fields: dict[str, Any], engines: list[str], message: str
) -> None:
    config = {**BaseConfig.open(workshop.bases["llama"]).config, **fields}
    with pytest.raises(UnsupportedError, match=f"serve_with: {message}"):
        architecture_for(config, [EngineKey(engine) for engine in engines])


def test_recipes_name_engines_that_are_known(workshop: Workshop) -> None:
    recipe = workshop.recipe(EDITS, more=f"serve_with: [vllm, slang]\n{TEXT}")
    with pytest.raises(RecipeError, match=r"serve_with\[1\]: found 'slang', expected 'vllm'"):
        parse_recipe(recipe, folder=workshop.folder)


def test_an_adapter_is_for_the_carriers_own_construction(
    workshop: Workshop, roomy: Path, tmp_path: Path
) -> None:
    carrier = carry(roomy, tmp_path / "carrier", 1)
    recipe = workshop.recipe(EDITS, base=roomy, more=BOTH)
    with pytest.raises(UnsupportedError, match="another construction than the carrier"):
        adapt(workshop, recipe, carrier, tmp_path / "adapter")
