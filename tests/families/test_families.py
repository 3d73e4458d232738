"""What every family must keep: logits, and what each of the base's layers does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from hubsplice.checkpoint.base import BaseCheckpoint, BaseConfig
from hubsplice.checkpoint.layer_map import FromBase
from hubsplice.checkpoint.layout import Zeros
from hubsplice.compiling.construct import empty_layer, stacked
from hubsplice.compiling.linker import Linker
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.families.architecture import architecture_of
from hubsplice.intervention.place import Place
from hubsplice.streams.model import decoder_layers, loaded
from tests.families.logits import logits_of, padded_batch, same_bits
from tests.families.variants import VARIANTS, Variant, save_tiny

Splice = Callable[..., Path]

DTYPES = [torch.float32, torch.bfloat16]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])


@pytest.mark.parametrize("after_layers", [(1,), (3, 0, 2)], ids=str)
@every_dtype
@every_variant
def test_an_empty_splice_changes_no_bit(
    tmp_path: Path,
    splice: Splice,
    variant: Variant,
    dtype: torch.dtype,
    after_layers: tuple[int, ...],
) -> None:
    base = save_tiny(variant, tmp_path / "base", dtype)
    spliced = splice(base, after_layers)
    with loaded(spliced, dtype) as model:
        assert len(decoder_layers(model)) > 4
    assert same_bits(logits_of(base, dtype), logits_of(spliced, dtype))
    before, after = BaseCheckpoint.open(base), BaseCheckpoint.open(spliced)
    architecture = architecture_of(before.config)
    layers = architecture.layer_map(list(map(Place, after_layers)))
    for name in before.tensors:
        assert same_bits(before.load(name), after.load(Linker(architecture, layers).rename(name)))


@every_variant
def test_generation_with_a_cache_is_the_bases(
    tmp_path: Path, splice: Splice, variant: Variant
) -> None:
    base = save_tiny(variant, tmp_path / "base", torch.float32)
    options: dict[str, Any] = {
        "max_new_tokens": 12,
        "min_new_tokens": 12,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    made = []
    for folder in (base, splice(base, (1, 3))):
        with loaded(folder, torch.float32) as model:
            made.append(model.generate(**padded_batch(), **options))
    before, after = made
    assert after.past_key_values.get_seq_length() == before.past_key_values.get_seq_length() > 40
    assert torch.equal(before.sequences, after.sequences)
    assert all(same_bits(a, b) for a, b in zip(before.logits, after.logits, strict=True))


@every_variant
def test_a_splice_of_a_splice_and_a_copy_that_transformers_saves(
    tmp_path: Path, splice: Splice, variant: Variant
) -> None:
    base = save_tiny(variant, tmp_path / "base", torch.float32)
    once = splice(base, (2, 0), name="once")
    twice = splice(once, (1, 5), name="twice")
    wanted = logits_of(base, torch.float32)
    assert same_bits(wanted, logits_of(twice, torch.float32))
    AutoModelForCausalLM.from_pretrained(twice, dtype="auto").save_pretrained(tmp_path / "copy")
    assert same_bits(wanted, logits_of(tmp_path / "copy", torch.float32))


def behaviour(layer: nn.Module) -> dict[str, Any]:
    """Whatever a layer's modules hold that is no weight: kinds, windows, scales, flags."""
    found: dict[str, Any] = {}
    for name, module in layer.named_modules():
        found[f"{name}.class"] = type(module).__name__
        for key, value in vars(module).items():
            if isinstance(value, str | bool | int | float | None) and key not in (
                "layer_idx",
                "training",
            ):
                found[f"{name}.{key}"] = value
    return found


@every_variant
def test_every_layer_of_the_base_behaves_as_before(
    tmp_path: Path, splice: Splice, variant: Variant
) -> None:
    base = save_tiny(variant, tmp_path / "base", torch.float32)
    after_layers = (0, 2, 2)
    architecture = architecture_of(BaseConfig.open(base).config)
    with (
        loaded(base, torch.float32) as before,
        loaded(splice(base, after_layers), torch.float32) as after,
    ):
        layers = decoder_layers(after)
        biases = {"bias"}
        for index, origin in enumerate(architecture.layer_map(list(map(Place, after_layers)))):
            if not isinstance(origin, FromBase):
                continue
            old, new = behaviour(decoder_layers(before)[origin.base]), behaviour(layers[index])
            switched_on = {k for k in old if k.split(".")[-1] in biases}
            for key in {*old, *new} - switched_on:
                assert old.get(key, ...) == new.get(key, ...), key


def filled(layer: CompiledLayer, neurons: int, seed: int) -> CompiledLayer:
    """A layer of the same kind with random tensors."""
    generator = torch.Generator().manual_seed(seed)

    def random(tensor: Tensor) -> Tensor:
        shape = [size or neurons for size in tensor.shape]
        return torch.randn(shape, generator=generator).to(tensor.dtype)

    changes: dict[str, Any] = {name: random(t) for name, t in layer.tensors().items()}
    return replace(layer, **changes)


@torch.no_grad()
def inputs_and_outputs(folder: Path, index: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(_module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> None:
        h = args[0] if args else kwargs["hidden_states"]
        seen.append((h, output[0] if isinstance(output, tuple) else output))

    with loaded(folder, dtype) as model:
        decoder_layers(model)[index].register_forward_hook(keep, with_kwargs=True)
        generator = torch.Generator().manual_seed(7)
        model(input_ids=torch.randint(3, 320, (2, 40), generator=generator))
    return seen[0]


@pytest.mark.parametrize("neurons", [1, 37])
@every_dtype
@every_variant
def test_a_stock_layer_computes_what_the_compiled_layer_says(
    tmp_path: Path, splice: Splice, variant: Variant, dtype: torch.dtype, neurons: int
) -> None:
    base = save_tiny(variant, tmp_path / "base", dtype)
    architecture = architecture_of(BaseConfig.open(base).config)
    layer = filled(empty_layer(architecture, dtype), neurons, 3)
    stack = stacked(architecture, layer, Place(1))
    spliced = splice(base, (1,) * len(stack), stack)
    before = inputs_and_outputs(spliced, 2, dtype)[0]
    after = inputs_and_outputs(spliced, 1 + len(stack), dtype)[1]
    assert not torch.equal(after, before)
    # OLMo's norm magnifies the rounding of the only neuron where that is close to zero.
    roundings = 32 if variant.family.startswith("olmo") else 8
    torch.testing.assert_close(
        layer(before, architecture.norm_eps),
        after,
        rtol=0.0,
        atol=roundings * torch.finfo(dtype).eps * float(after.abs().max()),
    )


@every_variant
def test_the_layout_names_what_every_layer_holds(tmp_path: Path, variant: Variant) -> None:
    base = save_tiny(variant, tmp_path / "base", torch.float32)
    architecture = architecture_of(BaseConfig.open(base).config)
    layers = architecture.layer_map([Place(1)])
    layout = Linker(architecture, layers).inserted_layout(0)
    empty = empty_layer(architecture, torch.float32)
    for layer in (empty, filled(empty, 5, 1)):
        tensors = Linker(architecture, layers).inserted_tensors(0, layer, torch.float32)
        assert list(tensors) == list(layout)
        for name, tensor in tensors.items():
            assert tuple(tensor.shape) == layout[name].shape
            value = layout[name].value
            if value is not None:
                held = torch.zeros(tensor.shape) if isinstance(tensor, Zeros) else tensor
                assert isinstance(held, Tensor)
                assert torch.equal(held, torch.full(layout[name].shape, value))
