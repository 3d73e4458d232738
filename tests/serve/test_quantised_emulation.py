"""The benchmark's arithmetic against compressed-tensors', the format that servers read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.quantised import (
    GROUP,
    SCHEMES,
    Quantised,
    channel_e4m3,
    channel_int8,
    group_int4,
    quantise,
    tensor_e4m3,
    to_e4m3,
    token_e4m3,
)


def weights(rows: int = 24, columns: int = 2 * GROUP) -> Tensor:
    """Rows of very different sizes, as inserted layers have them."""
    generator = torch.Generator().manual_seed(0)
    sizes = 10.0 ** torch.linspace(-3, 3, rows)[:, None]
    return torch.randn(rows, columns, generator=generator) * sizes


@pytest.mark.parametrize(
    ("emulated", "settings", "reduce"),
    [
        (tensor_e4m3, {"num_bits": 8, "type": "float", "strategy": "tensor"}, None),
        (channel_e4m3, {"num_bits": 8, "type": "float", "strategy": "channel"}, -1),
        (channel_int8, {"num_bits": 8, "type": "int", "strategy": "channel"}, -1),
        (
            group_int4,
            {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP},
            "groups",
        ),
    ],
)
def test_weights_are_rounded_as_compressed_tensors_rounds_them(
    emulated: Callable[[Tensor], Tensor], settings: dict[str, Any], reduce: Any
) -> None:
    quantization = pytest.importorskip("compressed_tensors.quantization")
    helpers = pytest.importorskip("compressed_tensors.quantization.utils.helpers")
    forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    arguments = quantization.QuantizationArgs(symmetric=True, **settings)
    weight = weights()
    if reduce == "groups":
        low, high = weight.reshape(len(weight), -1, GROUP).aminmax(dim=-1)
    elif reduce is None:
        low, high = weight.amin()[None], weight.amax()[None]
    else:
        low, high = weight.aminmax(dim=-1, keepdim=True)
    scale, zero = helpers.calculate_qparams(low, high, arguments)
    theirs = forward.fake_quantize(weight, scale, zero, arguments)
    torch.testing.assert_close(emulated(weight), theirs, rtol=1e-6, atol=0)
    assert not torch.equal(theirs, weight)


def test_tokens_have_scales_of_their_own() -> None:
    x = weights()
    torch.testing.assert_close(token_e4m3(x), torch.cat([token_e4m3(row[None]) for row in x]))
    # e4m3 has three bits after the leading one.
    large = x.abs() > x.abs().amax(dim=-1, keepdim=True) / 64
    assert ((token_e4m3(x) - x).abs() / x.abs())[large].max() <= 2**-4


def test_zeros_stay_zeros() -> None:
    zeros = torch.zeros(3, GROUP)
    for scheme in SCHEMES.values():
        if scheme is not None:
            assert torch.equal(scheme.weights(zeros), zeros)
            assert scheme.activations is None or torch.equal(scheme.activations(zeros), zeros)
    assert torch.equal(to_e4m3(zeros, zeros.amax()), zeros)


def test_fused_maps_share_a_scale() -> None:
    layer = nn.Module()
    layer.mlp = nn.Module()
    small, large = weights()[:1], weights()[-1:]
    for name, weight in (("gate_proj", large), ("up_proj", small), ("down_proj", small)):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight = nn.Parameter(weight)
        layer.mlp.add_module(name, linear)
    scheme = SCHEMES["fp8, per tensor"]
    assert scheme is not None
    quantise(layer, scheme)
    probe = torch.eye(small.shape[1])
    up, down = (layer.mlp.get_submodule(n) for n in ("up_proj", "down_proj"))
    assert isinstance(up, Quantised)
    # Beside a gate a million times as large nothing is left of it; by itself it is there.
    assert not up(probe).any()
    assert down(probe).any()
