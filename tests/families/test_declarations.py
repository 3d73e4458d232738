"""What holds for every family's declaration, whatever it says."""

from __future__ import annotations

import importlib
from dataclasses import is_dataclass

import pytest
import torch

from hubsplice.compiling.construct import compile_site
from hubsplice.families.family import Family, Special
from hubsplice.families.registry import FAMILIES, model_classes
from tests.constructions.streams import EDITS, calibration, hand_site
from tests.families.variants import VARIANTS, architecture_for

EVERY = dict(FAMILIES.items())

# The tiny checkpoints of these have a tokenizer, and tests of builds use them.
WITH_A_TOKENIZER = {"llama", "mistral", "phi3", "qwen2"}


def test_every_family_has_a_tiny_model_in_the_tests() -> None:
    assert {variant.family for variant in VARIANTS} | WITH_A_TOKENIZER == set(EVERY)


@pytest.mark.parametrize("model_type", EVERY)
def test_a_declaration_names_classes_that_transformers_has(model_type: str) -> None:
    family = EVERY[model_type]
    transformers = importlib.import_module("transformers")
    assert family.model_type == model_type
    assert hasattr(transformers, family.class_name)
    assert hasattr(transformers, family.becomes.name)


@pytest.mark.parametrize("model_type", EVERY)
def test_manifests_call_a_construction_as_the_family_does(model_type: str) -> None:
    site = hand_site(EDITS["relu ablate"]).site
    architecture = architecture_for(model_type)
    layer = compile_site(architecture, site, calibration(torch.float32), torch.float32)
    block = architecture.family.becomes.block
    assert layer.constants["construction"] == block.construction
    assert set(layer.written()) == set(block.roles)


@pytest.mark.parametrize("name", model_classes())
def test_what_is_known_of_engines_is_of_linear_maps_that_the_class_has(name: str) -> None:
    known = model_classes()[name]
    assert {p for switch in known.switches for p in switch.projections} <= {*known.projections}
    assert {*known.fixed_biases} <= {*known.projections}
    for support in known.engines.values():
        assert support.ignored_biases <= {*known.projections}


def test_a_family_is_data_and_at_most_one_class_below_special() -> None:
    assert is_dataclass(Family)
    assert not Family.__subclasses__()
    for special in Special.__subclasses__():
        assert special.__bases__ == (Special,)
        assert not special.__subclasses__()
