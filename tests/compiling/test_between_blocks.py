"""Inserted layers between a layer's attention and its MLP, in every family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hubsplice.checkpoint.base import BaseCheckpoint, BaseConfig
from hubsplice.checkpoint.layer_map import (
    FromBase,
    FromSplice,
    Joined,
    inserted_indices,
    inserted_places,
    layer_map,
)
from hubsplice.compiling.construct import empty_layer, stacked
from hubsplice.compiling.linker import Linker
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.errors import UnsupportedError
from hubsplice.families.architecture import architecture_of
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Block, Place
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.calibration import stream_at
from hubsplice.streams.model import decoder_layers, hooked, loaded, removed_afterwards
from tests.families.logits import logits_of, padded_batch, same_bits
from tests.families.variants import GATED, VARIANTS, Variant, save_tiny

Splice = Callable[..., Path]

LLAMAS = [
    Variant("llama", {"intermediate_size": 192}),
    Variant("llama", GATED | {"attention_bias": True}),
]
SEQUENTIAL = [
    variant
    for variant in (*LLAMAS, *VARIANTS)
    if variant.family != "gpt_neox" or variant.fields.get("use_parallel_residual") is False
]
MID = Place(1, Block.ATTENTION)

every_variant = pytest.mark.parametrize("variant", SEQUENTIAL, ids=str)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def test_the_layer_map_tears_the_first_inserted_layer_apart() -> None:
    base, splice = [FromBase(base=i) for i in range(3)], [FromSplice(splice=i) for i in range(4)]
    places = [Place(1), Place(0, Block.ATTENTION), Place(1, Block.ATTENTION), MID]
    layers = layer_map(3, places)
    assert layers == (
        Joined(attention=base[0], mlp=splice[1]),
        Joined(attention=splice[1], mlp=base[0]),
        Joined(attention=base[1], mlp=splice[2]),
        splice[3],
        Joined(attention=splice[2], mlp=base[1]),
        splice[0],
        base[2],
    )
    assert inserted_places(layers) == tuple(places)
    assert inserted_indices(layers) == (5, 0, 2, 3)
    assert inserted_indices(layers, Block.ATTENTION) == (5, 1, 4, 3)


def stack_of(folder: Path, dtype: torch.dtype, place: Place) -> Sequence[CompiledLayer]:
    architecture = architecture_of(BaseConfig.open(folder).config)
    return stacked(architecture, empty_layer(architecture, dtype), place)


@every_dtype
@every_variant
def test_an_empty_splice_changes_no_bit(
    tmp_path: Path, splice: Splice, variant: Variant, dtype: torch.dtype
) -> None:
    base = save_tiny(variant, tmp_path / "base", dtype)
    architecture = architecture_of(BaseConfig.open(base).config)
    places = [
        place
        for place in (Place(-1), MID, Place(1), Place(3, Block.ATTENTION))
        for _ in range(architecture.layers_per_splice(place))
    ]
    spliced = splice(base, places)
    with loaded(spliced, dtype) as model:
        assert len(decoder_layers(model)) == 4 + len(places)
    assert same_bits(logits_of(base, dtype), logits_of(spliced, dtype))
    before, after = BaseCheckpoint.open(base), BaseCheckpoint.open(spliced)
    layers = architecture.layer_map(places)
    for name in before.tensors:
        assert same_bits(before.load(name), after.load(Linker(architecture, layers).rename(name)))


@pytest.mark.parametrize("variant", SEQUENTIAL, ids=str)
def test_one_layer_more_where_the_attention_can_carry_the_constant(
    tmp_path: Path, variant: Variant
) -> None:
    base = save_tiny(variant, tmp_path / "base", torch.float32)
    free = variant in (LLAMAS[0],) or variant.family in ("granite", "seed_oss", "smollm3")
    assert len(stack_of(base, torch.float32, MID)) == (1 if free else 2)


def test_parallel_blocks_have_no_stream_between_them() -> None:
    config = {"model_type": "gpt_neox", "num_hidden_layers": 4, "hidden_size": 64}
    architecture = architecture_of(config)
    assert architecture.layer_map([Place(1)])
    with pytest.raises(UnsupportedError, match=r"after_attention: found 1, .*parallel_residual"):
        architecture.layer_map([MID])


def hand_delta(h: Tensor, term: Term) -> Tensor:
    """What `hand_term` adds to the stream, written out."""
    p = h @ term.encoder + term.bias
    return torch.where(p > 0, 2 * p, -p)[..., None] * term.direction


def hand_term(seed: int) -> Term:
    encoder, direction = torch.randn(2, 64, generator=torch.Generator().manual_seed(seed)) / 8
    return Term("", encoder, 0.1, PiecewiseLinear((0.0,), (-1.0, 2.0), (0.0, 0.0)), direction)


# What adds the attention's share to the stream, where it is not the attention itself.
_NORMALISED = ("gemma2", "gemma3", "gemma3_text", "olmo2", "olmo3")
_BRANCHES = dict.fromkeys(_NORMALISED, "post_attention_layernorm")
_ATTENTIONS = {"gpt2": "attn", "gpt_neox": "attention"}


@contextmanager
def edited_by_hand(
    model: Any, family: str, layer_index: int, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Add `change` of the stream behind a layer's attention to what that attention adds.

    This is the edit of the reference hook, which is made elsewhere in the block.
    """
    layer = decoder_layers(model)[layer_index]
    branch = layer.get_submodule(_BRANCHES.get(family, _ATTENTIONS.get(family, "self_attn")))
    factor = getattr(layer, "residual_multiplier", 1.0)
    entered: list[Tensor] = []

    def enter(_module: nn.Module, args: Any, kwargs: Any) -> None:
        entered.append(args[0] if args else kwargs["hidden_states"])

    def leave(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        added = output[0] if isinstance(output, tuple) else output
        added = added + change(entered.pop() + factor * added) / factor
        return (added, *output[1:]) if isinstance(output, tuple) else added

    handles = [
        layer.register_forward_pre_hook(enter, with_kwargs=True),
        branch.register_forward_hook(leave),
    ]
    with removed_afterwards(handles):
        yield


@every_variant
@torch.no_grad()
def test_the_hook_edits_what_the_mlp_reads_and_is_added_to(
    tmp_path: Path, variant: Variant
) -> None:
    base = save_tiny(variant, tmp_path / "base", torch.float32)
    term, later = hand_term(1), hand_term(2)
    edit = Intervention(
        (Site(1, (term,), block=Block.ATTENTION), Site(1, (later,)), Site(2, (later,)))
    )
    ids = padded_batch()["input_ids"]
    seen: list[Tensor] = []

    def change(h: Tensor) -> Tensor:
        seen.append(h)
        return hand_delta(h, term)

    with loaded(base, torch.float32) as model:
        plain = model(ids).logits
        with hooked(model, Intervention(edit.sites[1:])):
            after_only = model(ids).logits
            with edited_by_hand(model, variant.family, 1, change):
                wanted = model(ids).logits
        with hooked(model, edit):
            found = model(ids).logits
        stream = stream_at(model, ids, [MID, Place(1)], edit, lambda *_: None)
        assert torch.equal(model(ids).logits, plain)
    assert (wanted - after_only).abs().max() > 0.05
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    torch.testing.assert_close(stream[MID], seen[0].flatten(end_dim=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", [LLAMAS[0], Variant("gpt2")], ids=str)
@torch.no_grad()
def test_the_hook_before_all_layers_edits_what_the_embeddings_make_up(
    tmp_path: Path, variant: Variant
) -> None:
    base = save_tiny(variant, tmp_path / "base", torch.float32)
    term, ids = hand_term(1), padded_batch()["input_ids"]
    edit = Intervention((Site(-1, (term,)),))
    with loaded(base, torch.float32) as model:
        tokens = model.get_input_embeddings()(ids)
        stream = tokens
        if variant.family == "gpt2":
            stream = tokens + model.transformer.wpe(torch.arange(ids.shape[1]))
        wanted = model(inputs_embeds=tokens + hand_delta(stream, term)).logits
        found = stream_at(model, ids, [Place(-1)], edit, lambda *_: None)[Place(-1)]
        with hooked(model, edit):
            torch.testing.assert_close(model(ids).logits, wanted, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(model(ids).logits, wanted, atol=0.05)
    torch.testing.assert_close(found, stream.flatten(end_dim=1))


def test_the_hook_is_exact_in_bfloat16(tmp_path: Path) -> None:
    """The stream that the MLP's branch joins is the edited one, to the last bit."""
    base = save_tiny(LLAMAS[0], tmp_path / "base", torch.bfloat16)
    site = Site(1, (hand_term(1),), block=Block.ATTENTION)
    ids = padded_batch()["input_ids"]
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def run(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen[name] = output

        return run

    with loaded(base, torch.bfloat16) as model, torch.no_grad():
        layer: Any = decoder_layers(model)[1]
        before = stream_at(model, ids, [MID], Intervention(()), lambda *_: None)[MID]
        layer.mlp.register_forward_hook(keep("mlp"))
        layer.register_forward_hook(keep("layer"))
        with hooked(model, Intervention((site,))):
            model(ids)
        edited = site.edit(before).reshape(seen["mlp"].shape)
        assert torch.equal(layer.mlp(layer.post_attention_layernorm(edited)), seen["mlp"])
        assert torch.equal(edited + seen["mlp"], seen["layer"])
