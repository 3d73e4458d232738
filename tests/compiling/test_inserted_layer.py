"""An inserted layer in a stock model computes what `SplicedLayer` says it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.layout import Zeros
from hubsplice.compiling.linker import Linker
from hubsplice.constructions.prenorm_layer import SplicedLayer
from hubsplice.errors import UnsupportedError
from hubsplice.families.architecture import architecture_of
from hubsplice.intervention.place import Place

Make = Callable[..., Path]

HIDDEN, WIDTH = 64, 128


def random_layer(neurons: int, dtype: torch.dtype, seed: int = 3) -> SplicedLayer:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    return SplicedLayer(
        attention_bias=random(HIDDEN),
        gate_weight=random(neurons, HIDDEN),
        gate_bias=random(neurons),
        up_weight=random(neurons, HIDDEN),
        up_bias=random(neurons),
        down_weight=random(HIDDEN, neurons),
        down_bias=random(HIDDEN),
    )


@torch.no_grad()
def inputs_and_outputs(folder: Path, index: int) -> tuple[Tensor, Tensor]:
    """What goes into a layer of the stock model in a folder, and what comes out."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    seen: list[tuple[Tensor, Tensor]] = []
    model.model.layers[index].register_forward_hook(
        lambda module, arguments, output: seen.append((arguments[0], output))
    )
    generator = torch.Generator().manual_seed(7)
    model(input_ids=torch.randint(3, 320, (2, 40), generator=generator))
    return seen[0]


def widened(layer: SplicedLayer, width: int) -> SplicedLayer:
    """The layer with neurons that do nothing, so that `width` are there."""
    rest = width - layer.neurons
    rows, biases = torch.zeros(rest, HIDDEN), torch.zeros(rest)
    return SplicedLayer(
        layer.attention_bias,
        torch.cat([layer.gate_weight.float(), rows]),
        torch.cat([layer.gate_bias.float(), biases]),
        torch.cat([layer.up_weight.float(), rows]),
        torch.cat([layer.up_bias.float(), biases]),
        torch.cat([layer.down_weight.float(), rows.T], dim=1),
        layer.down_bias,
    ).to(layer.attention_bias.dtype)


@pytest.mark.parametrize("neurons", [0, 1, 5, 37, WIDTH])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "phi3"])
def test_a_stock_layer_computes_the_same(
    tiny_llama: Make, splice: Make, family: str, dtype: torch.dtype, neurons: int
) -> None:
    base = tiny_llama(family, dtype=str(dtype).removeprefix("torch."), rms_norm_eps=1e-3)
    layer = random_layer(neurons, dtype)
    before, after = inputs_and_outputs(splice(base, (1,), [layer]), 2)
    eps = architecture_of(BaseConfig.open(base).config).norm_eps
    assert eps == 1e-3
    assert not torch.equal(after, before)
    assert after.dtype == dtype
    assert torch.equal(after, widened(layer, WIDTH)(before, eps))
    # A narrower product is summed in another order: in the last digit it may differ.
    torch.testing.assert_close(
        layer(before, eps),
        after,
        rtol=0.0,
        atol=8 * torch.finfo(dtype).eps * float(after.abs().max()),
    )


def test_every_inserted_layer_goes_to_its_place(tiny_llama: Make, splice: Make) -> None:
    layers = [random_layer(3, torch.float32, seed) for seed in (10, 11, 12)]
    spliced = splice(tiny_llama(), (3, 0, 3), layers)
    for layer, index in zip(layers, (5, 1, 6), strict=True):
        before, after = inputs_and_outputs(spliced, index)
        assert torch.equal(after, widened(layer, WIDTH)(before, 1e-6))


def test_an_empty_layer_holds_nothing_but_its_norms(tiny_llama: Make) -> None:
    architecture = architecture_of(BaseConfig.open(tiny_llama()).config)
    layer = SplicedLayer.empty(HIDDEN, torch.bfloat16)
    layers = architecture.layer_map([Place(1)])
    tensors = Linker(architecture, layers).inserted_tensors(0, layer, torch.bfloat16)
    held = {name for name, tensor in tensors.items() if not isinstance(tensor, Zeros)}
    prefix = "model.layers.2"
    assert held == {
        f"{prefix}.input_layernorm.weight",
        f"{prefix}.post_attention_layernorm.weight",
    }
    assert len(tensors) == 16
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_a_full_layer_is_the_most_that_fits(tiny_llama: Make) -> None:
    architecture = architecture_of(BaseConfig.open(tiny_llama()).config)
    assert architecture.intermediate_size == WIDTH
    with pytest.raises(UnsupportedError, match=r"need 130 neurons, .* has 128: 2 too many"):
        Linker(architecture, architecture.layer_map([Place(0)])).inserted_tensors(
            0, random_layer(130, torch.float32), torch.float32
        )
