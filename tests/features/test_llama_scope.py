"""Folders of Llama Scope's trainer, against its own formulas written out here.

Those of `hyperparams.json` are what lm-saes computed when the Llama Scope SAEs were published: an
SAE is first made ready for inference (the scale folded into the biases, then the decoder's norms
into the encoder), and then its one threshold is read off. Those of `config.json` are what
llamascopium 2.0.0b34 computes in training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hubsplice.errors import CheckpointError, RecipeError, UnsupportedError
from hubsplice.features.extract import extract_feature
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import LoadedSae, load_sae
from hubsplice.features.sae_config import find_sae
from hubsplice.features.sae_files import files_of
from hubsplice.features.sae_match import site_place
from hubsplice.intervention.place import Place

D, FACTOR, K, NORM, THRESHOLD = 8, 3, 4, 0.9, 0.3
WIDTH = D * FACTOR
SCALE = D**0.5 / NORM
HOOK = "blocks.3.hook_resid_post"
H = 0.8 * torch.randn(200, D, generator=torch.Generator().manual_seed(9)) + 0.2
OLD = "checkpoints/final.safetensors"


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def settings(**changes: Any) -> dict[str, Any]:
    found = {
        "hook_point_in": HOOK,
        "hook_point_out": HOOK,
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "expansion_factor": FACTOR,
        "d_model": D,
        "d_sae": WIDTH,
        "act_fn": "jumprelu",
        "jump_relu_threshold": THRESHOLD,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": NORM, "out": NORM},
        "sparsity_include_decoder_norm": True,
        "use_glu_encoder": False,
        "top_k": K,
    }
    return {name: value for name, value in (found | changes).items() if value is not None}


def write_published(folder: Path, **changes: Any) -> dict[str, Tensor]:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "hyperparams.json").write_text(json.dumps(settings(**changes)))
    (folder / "lm_config.json").write_text(json.dumps({"model_name": "org/tiny"}))
    weights = {
        "encoder.weight": 0.4 * random(WIDTH, D),
        "encoder.bias": 0.3 * random(WIDTH),
        "decoder.weight": 0.25 * random(D, WIDTH, seed=1),
        "decoder.bias": random(D),
    }
    if changes.get("use_decoder_bias") is False:
        del weights["decoder.bias"]
    save_file(weights, folder / OLD)
    return weights


def write_trained(folder: Path, **changes: Any) -> dict[str, Tensor]:
    folder.mkdir(parents=True)
    changed = {"sae_type": "sae", "dataset_average_activation_norm": None, "d_sae": None, **changes}
    (folder / "config.json").write_text(json.dumps(settings(**changed)))
    weights = {
        "W_E": random(D, WIDTH),
        "b_E": 0.3 * random(WIDTH),
        "W_D": 0.5 * random(WIDTH, D, seed=1),
        "b_D": random(D),
        "activation_function.log_jumprelu_threshold": 0.4 * random(WIDTH, seed=4) - 1.0,
        f"dataset_average_activation_norm.{HOOK}": torch.tensor(NORM),
    }
    save_file(weights, folder / "sae_weights.safetensors")
    return weights


def published_edit(w: dict[str, Tensor], h: Tensor) -> tuple[Tensor, Tensor]:
    """Activations of the SAE made ready for inference, and its decoder rows."""
    norms = w["decoder.weight"].norm(dim=0)
    encoder = w["encoder.weight"] * norms[:, None]
    hidden = h @ encoder.T + (w["encoder.bias"] / SCALE) * norms
    return hidden.where(hidden > THRESHOLD, 0.0), (w["decoder.weight"] / norms).T


def written(sae: LoadedSae) -> Tensor:
    """What every feature writes at every token, shape [tokens, features, d]."""
    return sae.module.encode(H)[..., None] * sae.module.W_dec.detach()


def test_the_published_layout(tmp_path: Path) -> None:
    folder = tmp_path / "Llama3_1-8B-Base-L3R-3x"
    w = write_published(folder)
    sae = load_sae(SaeSource(path=folder))
    acts, rows = published_edit(w, H)
    assert 0.05 < (acts != 0).float().mean() < 0.6
    # Some features are between the two sides of a threshold that forgets scale or norms.
    plain = SCALE * H @ w["encoder.weight"].T + w["encoder.bias"]
    assert ((plain > THRESHOLD) != (acts != 0)).float().mean() > 0.02
    assert ((plain > SCALE * THRESHOLD) != (acts != 0)).float().mean() > 0.02
    torch.testing.assert_close(written(sae), acts[..., None] * rows, rtol=1e-4, atol=1e-5)
    # Activations are of the scaled stream, as SAELens's own loader has them.
    torch.testing.assert_close(
        sae.module.encode(H), plain.where(acts != 0, 0.0), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(sae.module.b_dec.detach(), w["decoder.bias"] / SCALE)
    found = find_sae(SaeSource(path=folder)).config
    assert (site_place(found, None), found.model_name, found.d_sae) == (Place(3), "org/tiny", WIDTH)
    assert files_of(folder) == (OLD, "hyperparams.json")
    feature = extract_feature(sae, 5)
    p = (H @ feature.encoder + feature.bias).tolist()
    torch.testing.assert_close(
        torch.tensor([feature.activation(one) for one in p])[:, None] * feature.decoder,
        (acts[..., None] * rows)[:, 5],
        rtol=1e-4,
        atol=1e-5,
    )


def test_norms_of_the_decoder_that_do_not_count(tmp_path: Path) -> None:
    w = write_published(tmp_path / "a", sparsity_include_decoder_norm=False)
    hidden = H @ w["encoder.weight"].T + w["encoder.bias"] / SCALE
    expected = SCALE * hidden.where(hidden > THRESHOLD, 0.0)
    sae = load_sae(SaeSource(path=tmp_path / "a"))
    torch.testing.assert_close(sae.module.encode(H), expected, rtol=1e-4, atol=1e-5)


def test_other_activations_and_scalings(tmp_path: Path) -> None:
    w = write_published(tmp_path / "relu", act_fn="relu", use_decoder_bias=False)
    plain = SCALE * H @ w["encoder.weight"].T + w["encoder.bias"]
    sae = load_sae(SaeSource(path=tmp_path / "relu"))
    torch.testing.assert_close(sae.module.encode(H), plain.relu(), rtol=1e-4, atol=1e-5)
    assert not sae.module.b_dec.any()

    w = write_published(tmp_path / "before", act_fn="relu", apply_decoder_bias_to_pre_encoder=True)
    plain = (SCALE * H - w["decoder.bias"]) @ w["encoder.weight"].T + w["encoder.bias"]
    sae = load_sae(SaeSource(path=tmp_path / "before"))
    torch.testing.assert_close(sae.module.encode(H), plain.relu(), rtol=1e-4, atol=1e-4)

    w = write_published(tmp_path / "token", norm_activation="token-wise")
    norms = w["decoder.weight"].norm(dim=0)
    scaled = H * D**0.5 / H.norm(dim=1, keepdim=True)
    plain = scaled @ w["encoder.weight"].T + w["encoder.bias"]
    sae = load_sae(SaeSource(path=tmp_path / "token"))
    torch.testing.assert_close(
        sae.module.encode(H), plain.where(plain * norms > THRESHOLD, 0.0), rtol=1e-4, atol=1e-5
    )

    # The k largest by what they write.
    w = write_published(tmp_path / "topk", act_fn="topk")
    norms = w["decoder.weight"].norm(dim=0)
    plain = (SCALE * H @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    kept = (plain * norms).topk(K, dim=-1).indices
    acts = torch.zeros_like(plain).scatter_(-1, kept, plain.gather(-1, kept))
    source = SaeSource(path=tmp_path / "topk")
    sae = load_sae(source)
    assert find_sae(source).config.k == K
    torch.testing.assert_close(
        sae.module.decode(sae.module.encode(H)) * SCALE,
        acts @ w["decoder.weight"].T + w["decoder.bias"],
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_layout_of_later_versions(tmp_path: Path) -> None:
    w = write_trained(tmp_path / "L3R")
    thresholds = w["activation_function.log_jumprelu_threshold"].exp()
    hidden = SCALE * H @ w["W_E"] + w["b_E"]
    expected = hidden.where(hidden * w["W_D"].norm(dim=1) > thresholds, 0.0)
    assert 0.05 < (expected != 0).float().mean() < 0.6
    sae = load_sae(SaeSource(path=tmp_path / "L3R"))
    torch.testing.assert_close(sae.module.encode(H), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sae.module.W_dec.detach(), w["W_D"] / SCALE)
    assert files_of(tmp_path / "L3R") == ("config.json", "sae_weights.safetensors")

    # Its own `fold_activation_scale` has been used: nothing is scaled any more.
    w = write_trained(tmp_path / "folded", act_fn="relu", norm_activation="inference")
    sae = load_sae(SaeSource(path=tmp_path / "folded"))
    expected = (H @ w["W_E"] + w["b_E"]).relu()
    torch.testing.assert_close(sae.module.encode(H), expected, rtol=1e-4, atol=1e-5)


def test_a_decoder_row_of_zeros_is_a_dead_feature(tmp_path: Path) -> None:
    w = write_published(tmp_path / "a")
    w["decoder.weight"][:, 2] = 0.0
    save_file(w, tmp_path / "a" / OLD)
    sae = load_sae(SaeSource(path=tmp_path / "a"))
    assert not sae.module.encode(H)[:, 2].any()
    with pytest.raises(RecipeError, match=r"feature: 2 of .* is dead"):
        extract_feature(sae, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hook_point_out": "blocks.3.hook_mlp_out"}, "a transcoder predicts"),
        ({"sae_type": "crosscoder"}, "its sae_type is 'crosscoder': a crosscoder reads several"),
        ({"sae_type": "mixcoder"}, "only those of sae_type 'sae'"),
        ({"use_glu_encoder": True}, "the product of two read-outs"),
        ({"act_fn": "batchtopk"}, "its act_fn is 'batchtopk'; expected one of relu, jumprelu"),
        ({"norm_activation": "batch-wise"}, "depends on all others of the batch"),
        ({"norm_activation": "layer"}, "its norm_activation is 'layer'; expected one of"),
        (
            {"hook_point_in": "blocks.3.hook_mlp_out", "hook_point_out": "blocks.3.hook_mlp_out"},
            "MLP's output",
        ),
    ],
)
def test_saes_that_cannot_be_spliced(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_published(tmp_path / "a", **changes)
    with pytest.raises(UnsupportedError, match=message):
        load_sae(SaeSource(path=tmp_path / "a"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_average_activation_norm": None}, "activation_norm is None; expected a number"),
        ({"dataset_average_activation_norm": {"in": 0.0}}, "is 0; expected the mean norm"),
        ({"jump_relu_threshold": "0.5"}, "jump_relu_threshold is '0.5'; expected a number"),
        ({"jump_relu_threshold": None}, r"threshold is missing; expected shape \[24\]"),
        ({"d_model": None}, "d_in in its configuration is None"),
        ({"d_sae": 20}, r"encoder\.weight .*of shape \[8, 24\]; expected shape \[8, 20\]"),
        ({"hook_point_in": None}, r"hyperparams\.json has no hook_point_in"),
    ],
)
def test_damaged_settings(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_published(tmp_path / "a", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_sae(SaeSource(path=tmp_path / "a"))


def test_near_misses(tmp_path: Path) -> None:
    folder = tmp_path / "LXR-8x" / "L3R"
    w = write_published(folder)
    with pytest.raises(CheckpointError, match=r"holds weights alone; .* name .*L3R$"):
        find_sae(SaeSource(path=folder / "checkpoints"))
    with pytest.raises(RecipeError, match=r"holds no cfg\.json; .*; L3R below it may be one"):
        find_sae(SaeSource(path=folder.parent))
    (folder / OLD).rename(folder / "checkpoints" / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no checkpoints/final\.safetensors"):
        find_sae(SaeSource(path=folder))
    torch.save({"sae": w, "version": "1"}, folder / "checkpoints" / "final.pt")
    with pytest.raises(CheckpointError, match=r"checkpoints/final\.pt is a pickle file"):
        find_sae(SaeSource(path=folder))


def test_a_repository_of_another_format_leads_to_the_registry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def holds_none(repo_id: str, filename: str, revision: str | None) -> None:
        raise RecipeError(f"{repo_id} holds no {filename}")

    monkeypatch.setattr("hubsplice.features.sae_config.fetch", holds_none)
    repository = "fnlp/Llama3_1-8B-Base-LXR-8x"
    with pytest.raises(RecipeError, match=r"release: llama_scope_lxr_8x, id: l13r_8x"):
        find_sae(SaeSource(repo_id=repository, subfolder="Llama3_1-8B-Base-L13R-8x"))
    with pytest.raises(RecipeError, match=r"registry has SAEs of fnlp.*release: llama_scope_lxr"):
        find_sae(SaeSource(repo_id=repository))
    with pytest.raises(RecipeError, match=r"^me/mine holds no cfg\.json$"):
        find_sae(SaeSource(repo_id="me/mine"))
