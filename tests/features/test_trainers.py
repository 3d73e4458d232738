"""Folders of other trainers, against each trainer's own formula written out here."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hubsplice.building.sources import source_digest
from hubsplice.errors import CheckpointError, UnsupportedError
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import load_sae
from hubsplice.features.sae_config import find_sae
from hubsplice.features.sae_match import site_place
from hubsplice.intervention.place import Place

D, WIDTH, K = 8, 20, 4
H = torch.randn(200, D, generator=torch.Generator().manual_seed(9)) + 0.5


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def top(acts: Tensor) -> Tensor:
    kept = acts.topk(K, dim=-1)
    return torch.zeros_like(acts).scatter_(-1, kept.indices, kept.values)


def write_sparsify(folder: Path, **changes: Any) -> dict[str, Tensor]:
    folder.mkdir(parents=True)
    (folder.parent / "config.json").write_text(json.dumps({"model": "org/tiny"}))
    config = {"activation": "topk", "expansion_factor": 32, "num_latents": WIDTH, "k": K, "d_in": D}
    (folder / "cfg.json").write_text(json.dumps(config | changes))
    weights = {
        "encoder.weight": random(WIDTH, D),
        "encoder.bias": random(WIDTH),
        "W_dec": random(WIDTH, D, seed=1),
        "b_dec": random(D),
    }
    save_file(weights, folder / "sae.safetensors")
    return weights


def write_dictionary(folder: Path, kind: str, **trainer: Any) -> dict[str, Tensor]:
    folder.mkdir(parents=True)
    named = {
        "dict_class": kind,
        "activation_dim": D,
        "dict_size": WIDTH,
        "k": K,
        "layer": 3,
        "lm_name": "org/tiny",
        "submodule_name": "resid_post_layer_3",
    }
    (folder / "config.json").write_text(json.dumps({"trainer": named | trainer, "buffer": {}}))
    linear = {"encoder.weight": random(WIDTH, D), "decoder.weight": random(D, WIDTH)}
    matrices = {"W_enc": random(D, WIDTH), "W_dec": random(WIDTH, D), "b_enc": random(WIDTH)}
    weights = {
        "AutoEncoder": linear | {"encoder.bias": random(WIDTH), "bias": random(D)},
        "AutoEncoderNew": linear | {"encoder.bias": random(WIDTH), "decoder.bias": random(D)},
        "GatedAutoEncoder": linear
        | {"r_mag": 0.3 * random(WIDTH, seed=2), "gate_bias": random(WIDTH, seed=3)}
        | {"mag_bias": random(WIDTH, seed=4), "decoder_bias": random(D)},
        "AutoEncoderTopK": linear
        | {"encoder.bias": random(WIDTH), "b_dec": random(D), "threshold": torch.tensor(-1.0)},
        "BatchTopKSAE": linear
        | {"encoder.bias": random(WIDTH), "b_dec": random(D), "threshold": torch.tensor(0.7)},
        "MatryoshkaBatchTopKSAE": matrices | {"b_dec": random(D), "threshold": torch.tensor(0.7)},
        "JumpReluAutoEncoder": matrices
        | {"b_dec": random(D), "threshold": random(WIDTH, seed=5).abs()},
    }[kind]
    save_file(weights, folder / "ae.safetensors")
    return weights


def dictionary_encode(kind: str, w: dict[str, Tensor], x: Tensor) -> Tensor:
    """What dictionary_learning 0.1.0 computes, class by class."""
    if kind == "AutoEncoderNew":
        return torch.relu(x @ w["encoder.weight"].T + w["encoder.bias"])
    if kind == "AutoEncoder":
        return torch.relu((x - w["bias"]) @ w["encoder.weight"].T + w["encoder.bias"])
    if kind == "GatedAutoEncoder":
        pre = (x - w["decoder_bias"]) @ w["encoder.weight"].T
        magnitude = torch.relu(w["r_mag"].exp() * pre + w["mag_bias"])
        return (pre + w["gate_bias"] > 0) * magnitude
    if kind == "JumpReluAutoEncoder":
        pre = x @ w["W_enc"] + w["b_enc"]
        return torch.relu(pre * (pre > w["threshold"]))
    if kind == "MatryoshkaBatchTopKSAE":
        acts = torch.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    else:
        acts = torch.relu((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"])
    return top(acts) if kind == "AutoEncoderTopK" else acts * (acts > w["threshold"])


def assert_encodes(source: SaeSource, expected: Tensor, decoder: Tensor) -> None:
    loaded = load_sae(source)
    assert (expected != 0).float().mean() > 0.05
    torch.testing.assert_close(loaded.module.encode(H), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(loaded.module.W_dec.detach(), decoder)


def test_sparsify(tmp_path: Path) -> None:
    folder = tmp_path / "layers.3"
    w = write_sparsify(folder)
    source = SaeSource(path=folder)
    # It subtracts b_dec whatever the decoder's norm.
    acts = torch.relu((H - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"])
    assert_encodes(source, top(acts), w["W_dec"])
    config = find_sae(source).config
    assert (site_place(config, None), config.model_name, config.k) == (Place(3), "org/tiny", K)


@pytest.mark.parametrize(
    "kind",
    [
        "AutoEncoder",
        "AutoEncoderNew",
        "GatedAutoEncoder",
        "JumpReluAutoEncoder",
        "AutoEncoderTopK",
        "BatchTopKSAE",
        "MatryoshkaBatchTopKSAE",
    ],
)
def test_dictionary_learning(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "trainer_0"
    w = write_dictionary(folder, kind)
    decoder = w["W_dec"] if "W_dec" in w else w["decoder.weight"].T
    assert_encodes(SaeSource(path=folder), dictionary_encode(kind, w, H), decoder)
    assert site_place(find_sae(SaeSource(path=folder)).config, None) == Place(3)


def test_gemma_scope(tmp_path: Path) -> None:
    arrays = {
        "W_enc": random(D, WIDTH),
        "W_dec": random(WIDTH, D),
        "b_enc": random(WIDTH),
        "b_dec": random(D),
        "threshold": random(WIDTH, seed=5).abs(),
    }
    np.savez(tmp_path / "params.npz", **{name: t.numpy() for name, t in arrays.items()})  # type: ignore[arg-type]
    pre = H @ arrays["W_enc"] + arrays["b_enc"]
    expected = (pre > arrays["threshold"]) * torch.relu(pre)
    assert_encodes(SaeSource(path=tmp_path), expected, arrays["W_dec"])
    # Nothing in it says where it was trained.
    assert find_sae(SaeSource(path=tmp_path)).config.hook is None


def test_a_pickle_is_refused_with_the_line_that_converts_it(tmp_path: Path) -> None:
    folder = tmp_path / "trainer 0"
    w = write_dictionary(folder, "AutoEncoder")
    (folder / "ae.safetensors").unlink()
    torch.save(w, folder / "ae.pt")
    with pytest.raises(
        CheckpointError, match=r"ae\.pt is a pickle file, which may run code"
    ) as caught:
        find_sae(SaeSource(path=folder))
    command = shlex.split(str(caught.value).splitlines()[-1])
    assert command[:2] == ["python", "-c"]
    subprocess.run([sys.executable, *command[1:]], check=True)
    found = load_file(folder / "ae.safetensors")
    assert all(torch.equal(found[name], w[name]) for name in w)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transcode": True}, "a transcoder predicts"),
        ({"skip_connection": True}, "a transcoder predicts"),
        ({"activation": "groupmax"}, "its activation is 'groupmax'"),
        ({"signed": True}, "its activation is 'signed'"),
    ],
)
def test_other_saes_of_sparsify(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_sparsify(tmp_path / "layers.3", **changes)
    with pytest.raises(UnsupportedError, match=message):
        find_sae(SaeSource(path=tmp_path / "layers.3"))


def test_places_and_classes_that_cannot_be_spliced(tmp_path: Path) -> None:
    write_dictionary(tmp_path / "a", "AutoEncoder", submodule_name="mlp_out_layer_3")
    with pytest.raises(UnsupportedError, match="MLP's output"):
        load_sae(SaeSource(path=tmp_path / "a"))
    write_dictionary(tmp_path / "b", "AutoEncoder", dict_class="CrossCoder")
    with pytest.raises(UnsupportedError, match="its class is 'CrossCoder'"):
        find_sae(SaeSource(path=tmp_path / "b"))
    write_dictionary(tmp_path / "c", "AutoEncoder", submodule_name=None)
    assert find_sae(SaeSource(path=tmp_path / "c")).config.hook is None


def test_damaged_folders(tmp_path: Path) -> None:
    folder = tmp_path / "layers.3"
    weights = write_sparsify(folder)
    source = SaeSource(path=folder)
    del weights["b_dec"]
    save_file(weights, folder / "sae.safetensors")
    with pytest.raises(CheckpointError, match=r"b_dec .* is missing; expected shape \[8\]"):
        load_sae(source)
    save_file(weights | {"b_dec": torch.zeros(D + 1)}, folder / "sae.safetensors")
    with pytest.raises(CheckpointError, match=r"b_dec .* of shape \[9\]; expected shape \[8\]"):
        load_sae(source)
    (folder / "sae.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no sae\.safetensors"):
        find_sae(source)
    (tmp_path / "params.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(CheckpointError, match=r"params\.npz: cannot be read"):
        find_sae(SaeSource(path=tmp_path))


def test_the_record_is_of_the_trainers_own_files(tmp_path: Path) -> None:
    folder = tmp_path / "layers.3"
    weights = write_sparsify(folder)
    before = source_digest("splices[0].sae.path", folder)
    save_file(weights | {"b_dec": weights["b_dec"] + 1.0}, folder / "sae.safetensors")
    assert source_digest("splices[0].sae.path", folder) != before
