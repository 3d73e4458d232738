"""SAEs that were trained on a stream without its mean read the stock model's stream."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hubsplice.compiling.plan import make_plan
from hubsplice.features.centring import fold_centring
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import load_sae
from hubsplice.features.sae_config import find_sae
from hubsplice.features.sae_support import config_warnings
from hubsplice.recipe.reading import parse_recipe
from tests.compiling.test_check import write_base
from tests.features.test_sae_sources import write_sae
from tests.features.test_saelens_agreement import random_sae, stream
from tests.tiny_tokenizer import byte_tokenizer

CENTRED = {
    "hook_name": "blocks.3.hook_resid_post",
    "model_from_pretrained_kwargs": {"center_writing_weights": True},
}


@pytest.mark.parametrize("kind", ["standard", "gated", "jumprelu", "topk", "abstopk_rescaled"])
@pytest.mark.parametrize("apply_b_dec", [False, True])
def test_a_folded_sae_gives_for_h_what_it_gave_for_h_without_its_mean(
    kind: str, apply_b_dec: bool
) -> None:
    sae = random_sae(kind, apply_b_dec=apply_b_dec)
    h = stream() + 3.0
    folded = deepcopy(sae)
    fold_centring(folded)
    expected = sae.encode(h - h.mean(dim=-1, keepdim=True))
    # Rounding may open or shut a gate here and there.
    apart = ~torch.isclose(folded.encode(h), expected, rtol=1e-4, atol=1e-4)
    assert apart.float().mean() < 1e-3
    assert (sae.encode(h) - expected).norm() > 0.1 * expected.norm()
    assert torch.equal(folded.W_dec, sae.W_dec)


def test_loading_folds_what_the_configuration_says(tmp_path: Path) -> None:
    plain = load_sae(write_sae(tmp_path / "plain"))
    centred = load_sae(write_sae(tmp_path / "centred", metadata=CENTRED))
    h = torch.randn(50, 8, generator=torch.Generator().manual_seed(2)) + 2.0
    expected = plain.module.encode(h - h.mean(dim=-1, keepdim=True))
    torch.testing.assert_close(centred.module.encode(h), expected, rtol=1e-4, atol=1e-4)
    assert centred.warnings == ()
    # The weights are known by what SAELens loads.
    assert centred.sha256 == plain.sha256


@pytest.mark.parametrize(
    ("normalize", "warned"),
    [("layer_norm", False), ("none", False), ("constant_norm_rescale", True)],
)
def test_what_no_encoder_can_do_is_said(normalize: str, warned: bool, tmp_path: Path) -> None:
    source = write_sae(tmp_path, metadata=CENTRED, normalize_activations=normalize)
    assert ("centred" in "".join(config_warnings(find_sae(source).config))) == warned
    plain = load_sae(write_sae(tmp_path / "plain", normalize_activations=normalize))
    # Nothing is folded where the input is scaled by more than the encoder sees.
    h = torch.randn(9, 8, generator=torch.Generator().manual_seed(2))
    same = torch.equal(load_sae(source).module.encode(h), plain.module.encode(h))
    assert same == (normalize != "none")


def test_transformer_lens_reads_the_stream_without_its_mean() -> None:
    """What is folded is what centring does to a model of LayerNorms, at every place."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=2, d_model=32, n_ctx=16, d_head=8, d_mlp=64, d_vocab=50,
            act_fn="gelu", normalization_type="LN", seed=0,
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3 + 0.1
    ids = torch.arange(12)[None]
    _, stock = model.run_with_cache(ids)
    model.load_and_process_state_dict(
        model.state_dict(),
        fold_ln=False,
        center_writing_weights=True,
        center_unembed=False,
        fold_value_biases=False,
    )
    _, processed = model.run_with_cache(ids)
    for name in ("blocks.0.hook_resid_pre", "blocks.1.hook_resid_mid", "blocks.1.hook_resid_post"):
        h = stock[name]
        assert h.mean(dim=-1).abs().max() > 0.1
        expected = h - h.mean(dim=-1, keepdim=True)
        torch.testing.assert_close(processed[name], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "folded"),
    [
        ({}, False),
        (
            {
                "architectures": ["GPTNeoXForCausalLM"],
                "model_type": "gpt_neox",
                "hidden_act": "gelu",
                "use_parallel_residual": False,
                "vocab_size": 300,
            },
            True,
        ),
    ],
)
def test_a_base_whose_norms_see_the_mean_was_not_centred(
    fields: dict[str, Any], folded: bool, tmp_path: Path
) -> None:
    write_base(tmp_path, hidden_size=8, **fields)
    save_file({"w": torch.zeros(2, 8)}, tmp_path / "base/model.safetensors")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    write_sae(tmp_path / "sae", metadata=CENTRED)
    text = "base_model: ./base\nsplices: [{sae: {path: sae}, edits: []}]"
    plan = make_plan(parse_recipe(text, folder=tmp_path))
    assert plan.splices[0].sae is not None
    assert plan.splices[0].sae.config.centred_weights == folded
    expected = replace(find_sae(SaeSource(path=tmp_path / "sae")).config, centred_weights=folded)
    assert plan.splices[0].sae.config == replace(expected, origin=plan.splices[0].sae.config.origin)
