"""Hooks on a real model: what they edit, what they see, and where they stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hubsplice.errors import CheckpointError
from hubsplice.fidelity.runs import greedy_tokens, run_model
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.calibration import stream_at
from hubsplice.streams.model import (
    Model,
    collect_streams,
    decoder_layers,
    editing_sinks,
    hooked,
    loaded,
)

Make = Callable[..., Path]

D, SEQUENCES, LENGTH = 64, 3, 20


def quiet(done: int, total: int) -> None:
    """Nobody watches."""


def term(seed: int) -> Term:
    encoder, direction = torch.randn(2, D, generator=torch.Generator().manual_seed(seed))
    return Term(f"term {seed}", encoder, 0.3, PiecewiseLinear.jump_relu(0.5).scaled(2.0), direction)


def change(h: Tensor, seed: int) -> Tensor:
    """What `term(seed)` adds, written out."""
    it = term(seed)
    p = h @ it.encoder + 0.3
    return (2 * p * (p > 0.5))[..., None] * it.direction


EDIT = Intervention((Site(1, (term(1),)), Site(2, (term(2), term(3)))))


@pytest.fixture
def model(tiny_llama: Make) -> Iterator[Model]:
    with loaded(tiny_llama(), torch.float32) as model:
        yield model


def ids() -> Tensor:
    return torch.randint(3, 259, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def streams(model: Model, edits: dict[int, Callable[[Tensor], Tensor]]) -> list[Tensor]:
    """The output of every layer, edited, and at last the logits, without any hook."""
    inner = model.model
    h = inner.embed_tokens(ids())
    positions = torch.arange(LENGTH)[None]
    rotary = inner.rotary_emb(h, positions)
    found = []
    mask = torch.full((LENGTH, LENGTH), torch.finfo(torch.float32).min).triu(1)[None, None]
    for i, layer in enumerate(inner.layers):
        h = layer(h, attention_mask=mask, position_embeddings=rotary, position_ids=positions)
        found.append(h)
        if i in edits:
            h = edits[i](h)
    return [*found, model.lm_head(inner.norm(h))]


BY_HAND: dict[int, Callable[[Tensor], Tensor]] = {
    1: lambda h: h + change(h, 1),
    2: lambda h: h + change(h, 2) + change(h, 3),
}


@torch.no_grad()
def test_hooks_edit_the_stream_and_later_ones_see_earlier_edits(model: Model) -> None:
    plain = model(ids()).logits
    torch.testing.assert_close(plain, streams(model, {})[-1], rtol=1e-4, atol=1e-4)
    with hooked(model, EDIT):
        edited = model(ids()).logits
    wanted = streams(model, BY_HAND)[-1]
    torch.testing.assert_close(edited, wanted, rtol=1e-4, atol=1e-4)
    # If the second site saw the stream without the first edit, this is how far off it would be.
    assert (edited - plain).abs().max() > 0.1
    assert not torch.allclose(edited, streams(model, {2: BY_HAND[2]})[-1], atol=0.05)
    assert torch.equal(model(ids()).logits, plain)


def test_others_who_look_at_an_edited_layer_see_the_edit(model: Model) -> None:
    seen: list[Tensor] = []

    def look(_module: Any, _inputs: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    layer = decoder_layers(model)[1]
    with torch.no_grad():
        handle = layer.register_forward_hook(look)
        model(ids())
        handle.remove()
        with hooked(model, EDIT):
            layer.register_forward_hook(look)
            model(ids())
    before, after = seen
    wanted = change(before, 1)
    assert wanted.norm() > 1.0
    torch.testing.assert_close(after - before, wanted, rtol=1e-4, atol=1e-4)


def test_a_hook_that_fails_is_taken_off_again(model: Model) -> None:
    wrong = Intervention(
        (Site(0, (Term("", torch.ones(3), 0.0, term(1).function, torch.ones(3)),)),)
    )
    with pytest.raises(RuntimeError), hooked(model, wrong):
        model(ids())
    model(ids())


def test_the_stream_at_a_site_is_the_one_before_its_own_edit(model: Model) -> None:
    found = stream_at(model, ids(), [Place(1), Place(2)], EDIT, quiet)
    wanted = streams(model, BY_HAND)
    assert set(found) == {Place(1), Place(2)}
    for layer in (1, 2):
        assert found[Place(layer)].shape == (SEQUENCES * LENGTH, D)
        torch.testing.assert_close(
            found[Place(layer)], wanted[layer].flatten(end_dim=1), rtol=1e-4, atol=1e-4
        )
    assert not torch.allclose(found[Place(2)], streams(model, {})[2].flatten(end_dim=1), atol=0.05)


def test_an_edit_before_all_places_that_are_looked_at_shows(model: Model) -> None:
    found = stream_at(model, ids(), [Place(2)], EDIT, quiet)[Place(2)]
    wanted = streams(model, BY_HAND)[2].flatten(end_dim=1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_pass_stops_after_the_last_layer_asked_for(model: Model) -> None:
    later: list[int] = []
    decoder_layers(model)[3].register_forward_hook(lambda *_: later.append(3))
    found = collect_streams(model, ids(), [Place(2), Place(0)], quiet)
    assert not later
    with torch.no_grad():
        whole = model(ids(), output_hidden_states=True).hidden_states
    assert later
    for layer in (0, 2):
        assert torch.equal(found[Place(layer)], whole[layer + 1])


def test_progress_counts_sequences(model: Model) -> None:
    seen: list[tuple[int, int]] = []
    many = ids().repeat(100, 20)
    collect_streams(model, many, [Place(0)], lambda done, total: seen.append((done, total)))
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == ((0, len(many)), (len(many), len(many)))


def test_batches_do_not_change_what_is_seen(model: Model) -> None:
    many = ids().repeat(40, 2)
    found = run_model(model, many, (), quiet).hidden
    torch.testing.assert_close(found[:SEQUENCES], found[-SEQUENCES:], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        alone = model.model(many[:1]).last_hidden_state
    torch.testing.assert_close(found[:1], alone, rtol=1e-5, atol=1e-5)


def test_greedy_tokens_under_hooks_need_no_cache(model: Model) -> None:
    prompts = ids()[:, :8]
    with hooked(model, EDIT):
        found = greedy_tokens(model, prompts, 6)
        sequence = prompts
        for _ in range(6):
            with torch.no_grad():
                scores = model(sequence, use_cache=False).logits[:, -1]
            # The end of the text may not come before its time.
            scores[:, 2] = -torch.inf
            sequence = torch.cat([sequence, scores.argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(found, sequence[:, 8:])
    assert not torch.equal(found, greedy_tokens(model, prompts, 6))


def test_editing_sinks_lifts_the_limit_alone() -> None:
    limited = Intervention(tuple(Site(s.layer, s.terms, 0.0) for s in EDIT.sites))
    h = torch.randn(5, D, generator=torch.Generator().manual_seed(1))
    assert not limited.sites[0].delta(h).any()
    for lifted, site in zip(editing_sinks(limited).sites, EDIT.sites, strict=True):
        assert lifted.layer == site.layer
        assert torch.equal(lifted.delta(h), site.delta(h))


def test_a_missing_tensor_is_an_error_and_no_random_number(tiny_llama: Make) -> None:
    """transformers only warns of it, and SAELens silences its warnings."""
    folder = tiny_llama()
    name = "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=name), loaded(folder, torch.float32):
        pass
