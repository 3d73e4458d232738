"""Steering vectors, subspaces and probes from safetensors files, and amounts in units."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from hubsplice.compiling.sources import SpliceSources
from hubsplice.edits.recording import Recording
from hubsplice.edits.strength import Amount
from hubsplice.errors import CheckpointError, RecipeError
from hubsplice.features.amounts import Activity
from hubsplice.features.base import Feature, SiteStatistics
from hubsplice.features.probe import load_probe
from hubsplice.features.references import ProbeSource, TensorSource
from hubsplice.features.vector import load_subspace, load_vector
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear

D = 6


def saved(folder: Path, **tensors: Tensor) -> Path:
    path = folder / "tensors.safetensors"
    save_file(tensors, path)
    return path


def test_a_vector_by_name_or_alone(tmp_path: Path) -> None:
    v, w = torch.randn(D), torch.randn(D)
    both = saved(tmp_path, v=v, w=w)
    assert torch.equal(load_vector(TensorSource(path=both, tensor="w"), D), w)
    with pytest.raises(RecipeError, match=r"holds 2 tensors \(v, w\)"):
        load_vector(TensorSource(path=both), D)
    with pytest.raises(RecipeError, match="Did you mean 'steer'"):
        load_vector(TensorSource(path=saved(tmp_path, steer=v, b=w), tensor="ster"), D)
    assert torch.equal(load_vector(TensorSource(path=saved(tmp_path, v=v)), D), v)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_vectors_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    v = torch.randn(D).to(dtype)
    loaded = load_vector(TensorSource(path=saved(tmp_path, v=v)), D)
    assert loaded.dtype is torch.float32
    assert torch.equal(loaded, v.float())


@pytest.mark.parametrize(
    ("tensor", "error", "message"),
    [
        (torch.ones(D + 1), RecipeError, r"has shape \[7\]; expected \[6\]"),
        (torch.ones(3, D), RecipeError, r"has shape \[3, 6\]; .* which of its 3 rows with `row`"),
        (torch.ones(1, D + 1), RecipeError, r"has shape \[7\]; expected \[6\]"),
        (torch.tensor(1.0), RecipeError, r"has shape \[\]"),
        (torch.zeros(D), RecipeError, "all zeros"),
        (torch.full((D,), math.nan), CheckpointError, "'v' holds NaN or infinity"),
        (torch.full((D,), math.inf), CheckpointError, "'v' holds NaN or infinity"),
        (torch.ones(D, dtype=torch.int64), CheckpointError, r"torch\.int64"),
    ],
)
def test_unusable_vectors(
    tensor: Tensor, error: type[Exception], message: str, tmp_path: Path
) -> None:
    source = TensorSource(path=saved(tmp_path, v=tensor))
    with pytest.raises(error, match=message):
        load_vector(source, D)


def test_a_row_of_a_stack(tmp_path: Path) -> None:
    stack = torch.arange(4 * D).reshape(4, D).float() + 1
    path = saved(tmp_path, v=stack)
    assert torch.equal(load_vector(TensorSource(path=path, row=2), D), stack[2])
    (axis,) = load_subspace(TensorSource(path=path, row=2), D)
    assert torch.allclose(axis.abs(), stack[2] / stack[2].norm())
    assert torch.equal(load_vector(TensorSource(path=saved(tmp_path, v=stack[:1])), D), stack[0])
    path = saved(tmp_path, v=stack)
    with pytest.raises(RecipeError, match=r"row: 4 is out of range; tensor 'v' .* rows 0 to 3"):
        load_vector(TensorSource(path=path, row=4), D)
    with pytest.raises(RecipeError, match=r"row: 0 is out of range; .* has no rows"):
        load_vector(TensorSource(path=saved(tmp_path, v=stack[0]), row=0), D)


LAYERS = {
    layer: torch.randn(D, generator=torch.Generator().manual_seed(layer)) for layer in (1, 2, 12)
}


def vectors_by_layer(folder: Path, kind: str) -> Path:
    """One vector for each layer, as repeng, llama.cpp and others write them."""
    path = folder / f"vectors.{kind}"
    if kind == "gguf":
        from gguf import GGUFWriter

        writer = GGUFWriter(path, "controlvector")
        writer.add_string("controlvector.model_hint", "llama")
        writer.add_uint32("controlvector.layer_count", len(LAYERS))
        for layer, vector in LAYERS.items():
            writer.add_tensor(f"direction.{layer}", vector.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    elif kind == "npz":
        np.savez(path, **{str(layer): vector.numpy() for layer, vector in LAYERS.items()})  # type: ignore[arg-type]
    else:
        save_file({f"layers.{layer}.v": vector for layer, vector in LAYERS.items()}, path)
    return path


@pytest.mark.parametrize("kind", ["gguf", "npz", "safetensors"])
def test_a_vector_for_each_layer(kind: str, tmp_path: Path) -> None:
    path = vectors_by_layer(tmp_path, kind)
    for layer, vector in LAYERS.items():
        assert torch.equal(load_vector(TensorSource(path=path), D, layer), vector)
    (axis,) = load_subspace(TensorSource(path=path), D, 12)
    assert torch.allclose(axis.abs(), (LAYERS[12] / LAYERS[12].norm()).abs(), atol=1e-6)
    with pytest.raises(RecipeError, match="each of the layers 1, 2, 12, and none for layer 3"):
        load_vector(TensorSource(path=path), D, 3)
    with pytest.raises(RecipeError, match="holds 3 tensors"):
        load_vector(TensorSource(path=path), D)
    names = {"gguf": "direction.2", "npz": "2", "safetensors": "layers.2.v"}
    named = TensorSource(path=path, tensor=names[kind])
    assert torch.equal(load_vector(named, D, 12), LAYERS[2])


def test_names_that_do_not_count_layers_are_no_vectors_by_layer(tmp_path: Path) -> None:
    path = saved(tmp_path, **{"layers.1.a": torch.ones(D), "layers.2.b": torch.ones(D)})
    with pytest.raises(RecipeError, match="holds 2 tensors"):
        load_vector(TensorSource(path=path), D, 1)
    # A single one is meant wherever the splice is, whatever number it bears.
    alone = saved(tmp_path, v2=torch.ones(D))
    assert torch.equal(load_vector(TensorSource(path=alone), D, 7), torch.ones(D))


def test_an_array_of_numpy(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.arange(1.0, D + 1.0))
    assert torch.equal(load_vector(TensorSource(path=tmp_path / "v.npy"), D), torch.arange(D) + 1.0)


def test_damaged_and_other_files_of_vectors(tmp_path: Path) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            load_vector(TensorSource(path=path), D, 1)

    for kind, blamed in (("gguf", "gguf cannot read it"), ("npz", "cannot be read|NumPy cannot")):
        whole = vectors_by_layer(tmp_path, kind)
        content = whole.read_bytes()
        whole.write_bytes(content[: len(content) // 3])
        refused(whole, blamed)
    np.savez(tmp_path / "objects.npz", v=np.array([{}], dtype=object))
    refused(tmp_path / "objects.npz", "NumPy cannot read it")
    (tmp_path / "v.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00")
    refused(tmp_path / "v.npy", "NumPy cannot read it")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is not a file"):
        load_vector(TensorSource(path=tmp_path / "nowhere.safetensors"), D)
    with pytest.raises(RecipeError, match="is not a file"):
        load_vector(TensorSource(path=tmp_path), D)
    pickled = tmp_path / "v.pt"
    torch.save(torch.ones(D), pickled)
    with pytest.raises(CheckpointError, match=r"a pickle of PyTorch .* can run code"):
        load_vector(TensorSource(path=pickled), D)
    for content, kind in {
        b'{"v": [1, 2]}': "JSON text",
        b"\x80\x04\x95": "a pickle, which can run code",
    }.items():
        other = tmp_path / "v.other"
        other.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{kind}.*a safetensors file was expected"):
            load_vector(TensorSource(path=other), D)
    path = saved(tmp_path, v=torch.ones(D))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_vector(TensorSource(path=path), D)


@given(st.integers(0, 2**16), st.integers(1, 5), st.integers(1, 3), st.integers(-4, 4))
def test_subspaces_are_orthonormal_bases_of_the_span(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rank: int, repeats: int, size: int
) -> None:
    """Repeated rows, and rows of very different lengths, leave the span as it is."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.linalg.qr(torch.randn(D, D, generator=generator))[0][:rank]
    mixed = torch.cat([rows * 10.0 ** (size * i) for i in range(repeats)])
    path = saved(tmp_path_factory.mktemp("subspace"), v=mixed)
    basis = load_subspace(TensorSource(path=path), D)
    assert basis.shape == (rank, D)
    torch.testing.assert_close(basis @ basis.T, torch.eye(rank), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(basis.T @ basis, rows.T @ rows, rtol=1e-5, atol=1e-5)


def test_a_single_vector_is_a_subspace(tmp_path: Path) -> None:
    v = torch.randn(D)
    basis = load_subspace(TensorSource(path=saved(tmp_path, v=v)), D)
    torch.testing.assert_close(basis.T @ basis, torch.outer(v, v) / (v @ v))
    for bad in (torch.zeros(2, D), torch.ones(2, D + 1), torch.ones(1, 2, D), torch.ones(0, D)):
        with pytest.raises(RecipeError, match=r"all zeros|has shape"):
            load_subspace(TensorSource(path=saved(tmp_path, v=bad)), D)


def test_probes(tmp_path: Path) -> None:
    w, b = torch.randn(D), torch.tensor([0.5])
    path = saved(tmp_path, weight=w, bias=b, wide=torch.randn(1, D), two=torch.ones(2))
    probe = load_probe(ProbeSource(path=path), D)
    assert torch.equal(probe.weight, w)
    assert probe.bias == 0.5
    assert load_probe(ProbeSource(path=path, bias=None), D).bias == 0.0
    assert load_probe(ProbeSource(path=path, weight="wide"), D).weight.shape == (D,)
    with pytest.raises(RecipeError, match="expected a single number"):
        load_probe(ProbeSource(path=path, bias="two"), D)
    with pytest.raises(RecipeError, match=r"expected \[6\]"):
        load_probe(ProbeSource(path=path, weight="two"), D)
    with pytest.raises(RecipeError, match="Did you mean 'bias'"):
        load_probe(ProbeSource(path=path, bias="bia"), D)
    zero = saved(tmp_path, weight=torch.zeros(D), bias=b)
    with pytest.raises(RecipeError, match="reads nothing"):
        load_probe(ProbeSource(path=zero), D)


ACTIVITY = {"feature 1": Activity(8.0, 3.0, 100, 5000), "feature 2": Activity(0.0, 0.0, 0, 5000)}


class TestAmounts:
    sources = SpliceSources(None, D, SiteStatistics(40.0, ACTIVITY))
    recording = Recording(sources)
    direction = torch.tensor([0.0, 3.0, 0.0, 4.0, 0.0, 0.0])

    def feature(self, index: int) -> Feature:
        return Feature(
            f"feature {index}", self.direction, 0.0, PiecewiseLinear.relu(), 0.0, self.direction
        )

    def test_units(self) -> None:
        one = self.feature(1)

        def amount(value: Amount) -> float:
            return self.recording.amount(value, direction=self.direction, feature=one)

        assert amount(Amount(-3.0)) == -3.0
        assert amount(Amount(0.5, "max")) == 4.0
        multiple = amount(Amount(0.5, "norm"))
        assert (multiple * self.direction).norm() == pytest.approx(20.0)

    @pytest.mark.parametrize(("index", "message"), [(2, "never active"), (3, "never active")])
    def test_a_feature_that_was_never_active_has_no_maximum(self, index: int, message: str) -> None:
        with pytest.raises(RecipeError, match=f"feature {index}, which was {message}"):
            self.recording.amount(
                Amount(1.0, "max"), direction=self.direction, feature=self.feature(index)
            )

    def test_a_vector_has_no_maximum(self) -> None:
        with pytest.raises(RecipeError, match=r"'1 x max' needs a feature"):
            self.recording.amount(Amount(1.0, "max"), direction=self.direction, feature=None)

    def test_a_stated_maximum_stands_for_the_measured_one(self) -> None:
        for index in (1, 2, 3):
            found = self.sources.resolve(
                Amount(0.5, "max"),
                direction=self.direction,
                feature=self.feature(index),
                stated_max=17.6,
            )
            assert found.value == pytest.approx(8.8)
            assert found.share == pytest.approx(8.8 * 5.0 / 40.0)
            assert found.activity == ACTIVITY.get(f"feature {index}")
        with pytest.raises(RecipeError, match=r"max: 17.6 is of a feature"):
            self.sources.resolve(
                Amount(3.0), direction=self.direction, feature=None, stated_max=17.6
            )

    def test_a_share_of_the_residual_norm(self) -> None:
        """Of each token's own norm, √d times its scale, where the SAE normalises its input."""
        own = replace(self.feature(1), normalization=Normalization.CONSTANT_NORM_RESCALE)
        for feature, expected in ((self.feature(1), 2.0 * 5 / 40), (own, 2.0 * 5 / D**0.5)):
            found = self.sources.resolve(
                Amount(-2.0), direction=self.direction, feature=feature, stated_max=None
            )
            assert found.share == pytest.approx(expected)
            assert found.own_norm is (feature is own)

    def test_a_splice_without_an_sae_has_no_features(self) -> None:
        with pytest.raises(RecipeError, match="feature: 12 needs an SAE"):
            self.sources.feature(12)
