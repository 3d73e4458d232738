"""What a hook that edits attention sinks too would do, against transformers with such a hook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from hubsplice.building.build import build
from hubsplice.fidelity.passes import PLAIN_SHARE, PLAIN_TOKENS, plain_sequences
from hubsplice.fidelity.report import FidelityReport
from hubsplice.intervention.saved import INTERVENTION, load_intervention
from hubsplice.intervention.site import Site
from hubsplice.recipe.reading import parse_recipe
from hubsplice.streams.precision import exact_products
from hubsplice.text.sequences import load_sequences
from hubsplice.text.tokenizer import load_tokenizer

Make = Callable[..., Path]

D, LENGTH, TOKENS = 64, 64, 2048

RECIPE = f"""
base_model: ./base
dtype: float32
splices:
  - after_layer: 1
    edits:
      - kind: steer
        vector: {{path: ./vector.safetensors}}
        strength: 0.5 x norm
calibration: {{dataset: ./text.txt, tokens: 1024, sequence_length: {LENGTH}}}
fidelity: {{dataset: ./text.txt, tokens: {TOKENS}, sequence_length: {LENGTH}, scan: 0}}
card: {{prompts: []}}
"""


def quiet(*_: object) -> None:
    """Nobody watches."""


def report_of(folder: Path, base: Path) -> FidelityReport:
    """Of a recipe that steers a base, on text of digits."""
    generator = torch.Generator().manual_seed(0)
    save_file({"v": torch.randn(D, generator=generator)}, folder / "vector.safetensors")
    lines = (
        " ".join(str(int(n)) for n in torch.randint(0, 10**6, (60,), generator=generator))
        for _ in range(400)
    )
    (folder / "text.txt").write_text("\n\n".join(lines), encoding="utf-8")
    report = build(
        parse_recipe(RECIPE, folder=folder),
        output=folder / "spliced",
        require_fidelity=None,
        measure=True,
        hard_link=False,
        progress=quiet,
        allow_failed=True,
    ).report
    assert report is not None
    return report


def with_sinks(base: Path) -> Path:
    """The base, with a stream that is very long where a sequence begins."""
    tensors = load_file(base / "model.safetensors")
    tensors["model.embed_tokens.weight"][1] *= 100
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    return base


@torch.inference_mode()
def log_probabilities(model: Any, ids: Tensor, site: Site) -> tuple[Tensor, Tensor]:
    """What a model says with the hook of a site, and which tokens are sinks there."""
    sinks = []

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        sinks.append(h.norm(dim=-1) > site.sink_norm)
        (term,) = site.terms
        written = term.function(0.0) * term.direction
        edited = torch.where(sinks[-1][..., None], h, h + written)
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    handle = model.model.layers[1].register_forward_hook(hook)
    try:
        return model(ids).logits.double().log_softmax(dim=-1), sinks[0]
    finally:
        handle.remove()


@exact_products()
def test_it_is_how_far_transformers_is_with_a_hook_on_every_token(
    tiny_llama: Make, tmp_path: Path
) -> None:
    base = with_sinks(tiny_llama(dtype="float32"))
    report = report_of(tmp_path, base)
    recipe = parse_recipe(RECIPE, folder=tmp_path)
    text = load_sequences(
        recipe.fidelity, load_tokenizer(base), seed=report.text.seed, part="held-out"
    )
    ids = text.ids[: PLAIN_TOKENS // LENGTH]
    assert plain_sequences(*text.ids.shape) == len(ids) > len(text.ids) // PLAIN_SHARE
    assert len(ids) < len(text.ids) == report.text.sequences
    (site,) = load_intervention(tmp_path / "spliced" / INTERVENTION).sites
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    hook, sinks = log_probabilities(model, ids, site)
    plain, _ = log_probabilities(model, ids, replace(site, sink_norm=float("inf")))
    assert torch.equal(sinks.nonzero()[:, 1], torch.zeros(len(ids), dtype=torch.long))
    wanted = (hook.exp() * (hook - plain)).sum(dim=-1)[:, 1:]
    found = report.plain_hook
    assert found is not None
    assert found.tokens == wanted.numel()
    assert found.divergence.mean > 1e-8
    assert found.divergence.mean == pytest.approx(float(wanted.mean()), rel=0.01)
    assert found.divergence.max == pytest.approx(float(wanted.max()), rel=0.01)


@pytest.mark.parametrize(
    ("sequences", "length", "wanted"),
    [(1, 128, 1), (3, 128, 3), (16, 128, 4), (157, 128, 20), (160, 128, 20), (40, 1024, 5)],
)
def test_it_is_run_over_an_eighth_of_the_text_and_a_few_sequences_at_least(
    sequences: int, length: int, wanted: int
) -> None:
    assert plain_sequences(sequences, length) == wanted


def test_a_hook_that_meets_no_sink_is_not_told_apart(tiny_llama: Make, tmp_path: Path) -> None:
    found = report_of(tmp_path, tiny_llama(dtype="float32")).plain_hook
    assert found is not None
    assert found.divergence.max < 1e-9
