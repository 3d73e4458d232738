"""Directions and probes that a recipe learns from examples, from the recipe to the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import hubsplice
from hubsplice.building.sources import read_sources
from hubsplice.errors import RecipeError
from hubsplice.intervention.saved import INTERVENTION, load_intervention

POSITIVE = ["the sun is warm", "a fine day it was", "all is well here"]
NEGATIVE = ["rain again!", "what a loss", "nothing works now"]
LAYER = 1


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("examples")
    (folder / "good.txt").write_text("\n".join(POSITIVE))
    (folder / "bad.txt").write_text("\n".join(NEGATIVE))
    positive, negative = str(folder / "good.txt"), str(folder / "bad.txt")
    return {"positive": positive, "negative": negative, "chat_template": False}


def recipe(base: Path, *edits: dict[str, Any]) -> dict[str, Any]:
    return {
        "base_model": str(base),
        "splices": [{"after_layer": LAYER, "edits": list(edits)}],
        "calibration": {"tokens": 512, "sequence_length": 64, "scan": 0},
    }


@torch.inference_mode()
def last_tokens(base: Path, texts: list[str], *, chat: bool = False) -> Tensor:
    """What transformers itself gives at the last token of each text, shape [texts, d]."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    found = []
    for text in texts:
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(
            asked if chat else text, return_tensors="pt", add_special_tokens=not chat
        ).input_ids
        found.append(model(ids, output_hidden_states=True).hidden_states[LAYER + 1][0, -1])
    return torch.stack(found)


def test_a_contrast_is_built_recorded_and_reproduced(
    base: Path, files: dict[str, Any], tmp_path: Path
) -> None:
    steer = {"kind": "steer", "contrast": files, "strength": 0.5}
    probe = {"kind": "gated_steer", "contrast": files, "strength": 0.1, "gate": {"probe": files}}
    output = tmp_path / "built"
    built = hubsplice.build(
        recipe(base, steer, probe), output, measure=False, progress=False
    ).folder
    expected = last_tokens(base, POSITIVE).mean(0) - last_tokens(base, NEGATIVE).mean(0)
    intervention = load_intervention(built / INTERVENTION)
    first, gated = intervention.sites[0].terms
    torch.testing.assert_close(first.direction, expected, rtol=1e-4, atol=1e-5)
    assert first.label == "steer contrast (mean, last) of good.txt and bad.txt"
    assert "where probe (last) of good.txt and bad.txt" in gated.label
    # The gate tells its own examples apart.
    for texts, is_open in ((POSITIVE, True), (NEGATIVE, False)):
        h = last_tokens(base, texts)
        assert bool(((h @ gated.encoder + gated.bias > 0) == is_open).all())
    recorded = {source.name for source in read_sources(built).local}
    assert recorded == {"good.txt", "bad.txt"}
    verified = hubsplice.verify(built, base=base, progress=False)
    assert verified.passed, str(verified)
    again = hubsplice.lower(recipe(base, steer, probe), progress=False)
    assert torch.equal(again.sites[0].terms[0].direction, first.direction)


def test_inline_prompts_a_gate_and_a_pair(base: Path) -> None:
    inline = {"positive": POSITIVE, "negative": NEGATIVE, "read": "all", "method": "pca"}
    gate = {"contrast": {"positive": POSITIVE, "negative": NEGATIVE}}
    edit = {"kind": "gated_steer", "contrast": inline, "strength": "0.2 x norm", "gate": gate}
    (term,) = hubsplice.lower(recipe(base, edit), progress=False).sites[0].terms
    # Plain strings are what a user says.
    p, n = (last_tokens(base, texts, chat=True).mean(0) for texts in (POSITIVE, NEGATIVE))
    torch.testing.assert_close(term.encoder, p - n, rtol=1e-4, atol=1e-5)
    (threshold,) = term.function.breakpoints
    assert threshold == pytest.approx(float((p + n) / 2 @ (p - n)), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("contrast", "message"),
    [
        (
            {"positive": POSITIVE, "negative": NEGATIVE[:2], "method": "pca"},
            r"edits\[0\]: contrast: found 3 positive and 2 negative prompts",
        ),
        ({"positive": "no.txt", "negative": NEGATIVE}, "there is no file"),
        ({"positive": [], "negative": NEGATIVE}, r"contrast.positive: found \[\], expected"),
        ({"positive": POSITIVE, "negative": POSITIVE}, "examples are the same"),
        ({"positive": 3, "negative": NEGATIVE}, r"contrast.positive: found 3, expected "),
        ({"positive": POSITIVE}, r"contrast.negative: missing"),
        ({"positive": POSITIVE, "negative": NEGATIVE, "how": 1}, "no such field"),
    ],
)
def test_wrong_examples_are_named_by_check(
    contrast: dict[str, Any], message: str, base: Path
) -> None:
    edit = {"kind": "steer", "contrast": contrast, "strength": 1}
    with pytest.raises(RecipeError, match=message):
        hubsplice.check(recipe(base, edit))
