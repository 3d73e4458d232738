"""Gemma 2: its configuration before and after a splice, and the caps on its logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.compiling.construct import compile_site
from hubsplice.compiling.linker import Linker
from hubsplice.errors import UnsupportedError
from hubsplice.families.architecture import architecture_of
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.calibration import SiteActivations, median_norm, stream_at
from hubsplice.streams.model import hooked, loaded
from tests.families.variants import GATED, WINDOWED, Variant, save_tiny

Splice = Callable[..., Path]

NOTHING = Intervention(())


def config_of(**fields: Any) -> dict[str, Any]:
    """A config.json as the checkpoints on the Hub have it."""
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "hidden_size": 64,
        "num_hidden_layers": 5,
        "sliding_window": 4096,
        "torch_dtype": "bfloat16",
        **fields,
    }


def test_layer_types_that_were_implied_are_written_out() -> None:
    architecture = architecture_of(config_of())
    layers = architecture.layer_map([Place(0), Place(3)])
    result = Linker(architecture, layers).config(torch.bfloat16)
    sliding, full = "sliding_attention", "full_attention"
    assert result["layer_types"] == [sliding, sliding, full, sliding, full, sliding, sliding]
    assert result["num_hidden_layers"] == 7
    assert result["attention_bias"] is True
    assert result["sliding_window"] == 4096


def test_sizes_that_are_left_out_are_those_of_the_family() -> None:
    architecture = architecture_of(config_of())
    assert architecture.intermediate_size == 9216
    assert architecture.projections["self_attn.k_proj"].shape == (1024, 64)
    assert architecture.tied
    assert not architecture_of(config_of(tie_word_embeddings=False)).tied


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_activation": "gelu"}, "hidden_activation: found 'gelu', expected"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention: found true"),
        ({"architectures": ["Gemma2Model"]}, r"architectures: found \['Gemma2Model'\], expected"),
        ({"layer_types": ["full_attention"]}, "layer_types: found 1 entries, expected a list of 5"),
    ],
)
def test_configs_that_cannot_be_spliced(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        architecture_of(config_of(**fields)).validate()


def test_an_activation_that_is_left_out_is_the_one_that_is_needed() -> None:
    architecture_of(config_of(hidden_act="gelu_pytorch_tanh", hidden_activation=None)).validate()


def logits_of(folder: Path, hook: Intervention = NOTHING) -> Tensor:
    ids = torch.randint(3, 320, (2, 40), generator=torch.Generator().manual_seed(1))
    with loaded(folder, torch.float32) as model, hooked(model, hook), torch.inference_mode():
        logits: Tensor = model(ids).logits
        return logits


CAPS = {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 2.0}


def test_caps_on_logits_hold_for_an_edit_as_they_do_for_the_hook(
    tmp_path: Path, splice: Splice
) -> None:
    base = save_tiny(Variant("gemma2", GATED | WINDOWED | CAPS), tmp_path / "base", torch.float32)
    config = json.loads((base / "config.json").read_text())
    logits = logits_of(base)
    for name in CAPS:
        (base / "config.json").write_text(json.dumps(config | {name: None}))
        # Either cap is felt.
        assert (logits_of(base) - logits).abs().max() > 0.05
    (base / "config.json").write_text(json.dumps(config))

    text = torch.randint(3, 320, (24, 64), generator=torch.Generator().manual_seed(2))
    with loaded(base, torch.float32) as model:
        h = stream_at(model, text, [Place(1)], NOTHING, lambda _a, _b: None)[Place(1)]
    axes = torch.nn.functional.normalize(h[:8] - h.mean(dim=0), dim=1)
    ablate = PiecewiseLinear.relu().scaled(-1.0)
    terms = [
        Term("", e, -float((h @ e).quantile(0.8)), ablate, 4 * d)
        for e, d in zip(axes[:4], axes[4:], strict=True)
    ]
    site = Site(1, tuple(terms), 5 * median_norm(h))
    architecture = architecture_of(BaseConfig.open(base).config)
    activations = SiteActivations(h, h, median_norm(h), architecture.norm_eps)
    layer = compile_site(architecture, site, activations, torch.float32)
    spliced = splice(base, (1,), [layer])

    written = json.loads((spliced / "config.json").read_text())
    assert {name: written[name] for name in CAPS} == CAPS
    truth = logits_of(base, Intervention((site,)))
    effect = (truth - logits).norm()
    assert effect > 0.01 * logits.norm()
    assert (logits_of(spliced) - truth).norm() < 2e-3 * effect
