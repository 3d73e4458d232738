"""Layers passed one by one: the bits of the model's own pass, for every family; kept streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hubsplice.errors import CheckpointError, UnsupportedError
from hubsplice.fidelity import runs
from hubsplice.fidelity.beginning import begins_alike
from hubsplice.fidelity.runs import Variant, greedy_tokens, run_model, run_variants
from hubsplice.intervention.intervention import NO_EDIT, Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Block, Place
from hubsplice.intervention.site import Site, Term
from hubsplice.streams import kept as kept_module
from hubsplice.streams.calibration import stream_at
from hubsplice.streams.in_step import layer_calls
from hubsplice.streams.kept import FOLDER, LIMIT, Kept, clear_kept, kept_files
from hubsplice.streams.model import Model, decoder_layers, hooked, in_batches, loaded
from hubsplice.streams.on_disk import bytes_on_disk
from hubsplice.streams.room import MEMORY
from tests.families.logits import same_bits
from tests.families.variants import VARIANTS, save_tiny
from tests.families.variants import Variant as Family

Make = Callable[..., Path]

LENGTH = 40


def quiet(*_: object) -> None:
    """Nobody watches."""


def ids(sequences: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, 259, (sequences, LENGTH), generator=generator)


def edit(*places: Place) -> Intervention:
    def site(place: Place) -> Site:
        encoder, direction = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
        function = PiecewiseLinear.jump_relu(0.1).scaled(2.0)
        term = Term("t", encoder, 0.1, function, direction)
        return Site(place.layer, (term,), block=place.block)

    return Intervention(tuple(map(site, places)))


@torch.inference_mode()
def own_pass(model: Model, tokens: Tensor) -> Tensor:
    last: Tensor = model.base_model(tokens, use_cache=False).last_hidden_state
    return last


@pytest.mark.parametrize("memory", ["whole", "0"])
@pytest.mark.parametrize("family", VARIANTS, ids=str)
def test_last_states_are_those_of_the_models_own_pass(
    family: Family, memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny(family, tmp_path / "base", torch.bfloat16)
    monkeypatch.setenv(MEMORY, memory)
    with loaded(folder, torch.float32) as model:
        wanted = own_pass(model, ids())
        assert same_bits(run_model(model, ids(), (), quiet).hidden, wanted)


@torch.inference_mode()
def test_a_wrong_mask_shows(tmp_path: Path) -> None:
    family = next(v for v in VARIANTS if v.family == "gemma3_text" and len(v.fields) > 6)
    with loaded(save_tiny(family, tmp_path / "base", torch.float32), torch.float32) as model:
        calls = layer_calls(model, ids())
        kinds = [call.kwargs["attention_mask"] for call in calls]
        other = next(mask for mask in kinds if mask is not kinds[0])
        h = model.model.embed_tokens(ids())
        right = calls[0](h)
        calls[0].kwargs["attention_mask"] = other
        assert not torch.equal(right, calls[0](h))


EDITS = [
    ((Place(2),), 3),
    ((Place(3),), 3),
    ((Place(1), Place(3)), 2),
    ((Place(-1), Place(0)), 0),
    ((Place(1, Block.ATTENTION), Place(1)), 1),
    ((Place(1), Place(2, Block.ATTENTION)), 2),
]
"""Of a model of four layers: places, and the layer that is entered when the first of them acts."""


@pytest.mark.parametrize(("places", "first"), EDITS, ids=str)
def test_variants_in_step_are_those_that_go_alone(
    places: tuple[Place, ...], first: int, tiny_llama: Make
) -> None:
    hook = edit(*places)
    differ = places[0]
    with loaded(tiny_llama(), torch.float32) as model:
        bare = own_pass(model, ids())
        with hooked(model, hook):
            edited = own_pass(model, ids())
        variants = [Variant(), Variant(hook, places), Variant()]
        entered, runs = run_variants(model, ids(), variants, quiet, differ=differ)
        assert entered.layer == first
        assert same_bits(runs[0].hidden, bare)
        assert same_bits(runs[1].hidden, edited)
        assert same_bits(runs[2].hidden, bare)
        assert not torch.equal(bare, edited)
        for place, h in stream_at(model, ids(), places, hook, quiet).items():
            assert same_bits(runs[1].streams[place], h)
        _, (again,) = run_variants(model, ids(), [Variant(hook)], quiet, entered=entered)
        assert same_bits(again.hidden, edited)


@pytest.mark.parametrize("count", [1, 50, 51, 52, 200])
def test_a_variant_passes_only_as_many_sequences_as_it_is_asked_to(
    count: int, tiny_llama: Make
) -> None:
    # Two batches.
    hook, text = edit(Place(1)), ids(60)
    with loaded(tiny_llama(), torch.float32) as model:
        assert len(in_batches(model, text)) == 2
        variants = [Variant(), Variant(hook, sequences=count), Variant(hook)]
        _, (bare, part, edited) = run_variants(model, text, variants, quiet, differ=Place(1))
    assert bare.hidden.shape == edited.hidden.shape == (60, LENGTH, 64)
    assert part.hidden.shape == (min(count, 60), LENGTH, 64)
    torch.testing.assert_close(part.hidden, edited.hidden[:count], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(part.hidden, bare.hidden[:count], rtol=1e-2, atol=1e-2)


def test_common_layers_are_passed_once(tiny_llama: Make) -> None:
    with loaded(tiny_llama(), torch.float32) as model:
        passed: list[int] = []
        for i, layer in enumerate(decoder_layers(model)):
            layer.register_forward_pre_hook(lambda *_, i=i: passed.append(i))
        run_variants(model, ids(), [Variant(), Variant(edit(Place(2)))], quiet, differ=Place(2))
    assert passed == [0, 1, 2, 3, 3]


def test_a_splice_begins_as_its_base_does_or_not(tiny_llama: Make) -> None:
    base = tiny_llama(name="base")
    other = tiny_llama(name="other")
    assert begins_alike(base, other, 2)
    path = other / "model.safetensors"
    tensors = load_file(path)

    def saved(name: str, tensor: Tensor) -> None:
        save_file(tensors | {name: tensor}, path, metadata={"format": "pt"})

    late, early = (f"model.layers.{i}.mlp.up_proj.weight" for i in (2, 1))
    saved(late, tensors[late] + 1)
    assert begins_alike(base, other, 2)
    assert not begins_alike(base, other, 3)
    saved(
        early,
        tensors[early].clone().index_put_((torch.tensor(0), torch.tensor(0)), torch.tensor(9.0)),
    )
    assert not begins_alike(base, other, 2)
    bias = "model.layers.0.self_attn.o_proj.bias"
    saved(bias, torch.zeros(64))
    assert begins_alike(base, other, 2)
    saved(bias, torch.full((64,), 1e-3))
    assert not begins_alike(base, other, 2)
    assert not begins_alike(base, tiny_llama(name="third", rms_norm_eps=1e-4), 2)


SLIDING, FULL = "sliding_attention", "full_attention"


@pytest.mark.parametrize(
    ("name", "ours", "same", "other"),
    [
        ("layer_types", [SLIDING, FULL, FULL], [SLIDING, FULL, SLIDING, FULL], [FULL, SLIDING]),
        ("no_rope_layers", [1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 1]),
        ("mlp_only_layers", [1, 2], [2, 1, 3], [2]),
        ("max_window_layers", 3, 4, 1),
    ],
)
def test_a_splice_whose_first_layers_are_of_other_kinds_does_not_begin_as_its_base(
    name: str, ours: Any, same: Any, other: Any, tiny_llama: Make
) -> None:
    base, spliced = tiny_llama(name="base"), tiny_llama(name="other")

    def said(folder: Path, value: Any) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    said(base, ours)
    # Only one of the two says it.
    assert begins_alike(base, spliced, 2)
    said(spliced, same)
    assert begins_alike(base, spliced, 2)
    said(spliced, other)
    assert not begins_alike(base, spliced, 2)


def test_nothing_is_generated_that_would_take_hours(
    tiny_llama: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MEMORY, "0")
    with loaded(tiny_llama(), torch.float32) as model:
        found = greedy_tokens(model, ids(), 2)
        monkeypatch.setattr(runs, "MOST_READ", 2 * bytes_on_disk(model) - 1)
        with pytest.raises(
            UnsupportedError, match=r"each of 2 new tokens would read .* from the disk"
        ):
            greedy_tokens(model, ids(), 2)
    monkeypatch.setenv(MEMORY, "whole")
    with loaded(tiny_llama(), torch.float32) as model:
        assert torch.equal(greedy_tokens(model, ids(), 2), found)


@pytest.fixture
def keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which work is kept."""
    folder = tmp_path / "kept"
    monkeypatch.setenv(FOLDER, str(folder))
    monkeypatch.setenv(LIMIT, "1GB")
    return folder


def layers_passed(base: Path, tokens: Tensor, dtype: torch.dtype = torch.float32) -> list[int]:
    """Which layers a look at the stream after layer 2 passes; its bits are checked."""
    with loaded(base, dtype) as model:
        wanted = stream_at(model, tokens, [Place(2)], Intervention(()), quiet)
    passed: list[int] = []
    with loaded(base, dtype, keep=True) as model:
        for i, layer in enumerate(decoder_layers(model)):
            layer.register_forward_pre_hook(lambda *_, i=i: passed.append(i))
        found = stream_at(model, tokens, [Place(2)], Intervention(()), quiet)
    assert same_bits(found[Place(2)], wanted[Place(2)])
    return passed


def test_a_kept_stream_is_used_for_the_same_and_nothing_else(
    tiny_llama: Make, keeping: Path
) -> None:
    base = tiny_llama()
    assert layers_passed(base, ids()) == [0, 1, 2]
    assert layers_passed(base, ids()) == []
    assert layers_passed(base, ids() + 1) == [0, 1, 2]
    assert layers_passed(base, ids(), torch.bfloat16) == [0, 1, 2]
    path = base / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    assert layers_passed(base, ids()) == [0, 1, 2]
    assert clear_kept() > 0
    assert layers_passed(base, ids()) == [0, 1, 2]


def test_what_an_edit_changes_is_never_kept_as_the_bases(tiny_llama: Make, keeping: Path) -> None:
    base, places = tiny_llama(), [Place(1), Place(2), Place(3)]
    hook = edit(Place(1))

    def looked(edit: Intervention, *, keep: bool) -> dict[Place, Tensor]:
        with loaded(base, torch.float32, keep=keep) as model:
            return stream_at(model, ids(), places, edit, quiet)

    def passed(*, keep: bool) -> tuple[Tensor, ...]:
        """The last states of the base, of a variant with the hook, and of a model with it."""
        with loaded(base, torch.float32, keep=keep) as model:
            variants = [Variant(), Variant(hook)]
            _, (bare, variant) = run_variants(model, ids(), variants, quiet, differ=Place(1))
            with hooked(model, hook):
                edited = run_model(model, ids(), (), quiet)
            again = run_model(model, ids(), (), quiet)
        return bare.hidden, variant.hidden, edited.hidden, again.hidden

    wanted = {id(of): looked(of, keep=False) for of in (NO_EDIT, hook)}
    states = passed(keep=False)
    assert not kept_files()
    assert not torch.equal(wanted[id(NO_EDIT)][Place(2)], wanted[id(hook)][Place(2)])
    for of in (hook, NO_EDIT, hook, NO_EDIT):
        found = looked(of, keep=True)
        assert all(same_bits(found[place], wanted[id(of)][place]) for place in places)
        assert all(map(same_bits, passed(keep=True), states))
    assert same_bits(states[0], states[3])
    assert same_bits(states[1], states[2])
    assert kept_files()


def test_nothing_is_kept_of_a_base_that_changes_meanwhile(
    tiny_llama: Make, keeping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_llama()
    path = base / "model.safetensors"
    for memory, error in (("0", "the file changed while it was in use"), ("whole", None)):
        monkeypatch.setenv(MEMORY, memory)
        content = path.read_bytes()
        refused = nullcontext() if error is None else pytest.raises(CheckpointError, match=error)
        with refused, loaded(base, torch.float32, keep=True) as model:
            path.write_bytes(content)
            stream_at(model, ids(), [Place(2)], Intervention(()), quiet)
        assert not kept_files()
    monkeypatch.setenv(MEMORY, "0")
    gone = pytest.raises(CheckpointError, match="is gone while")
    with gone, loaded(base, torch.float32):
        path.unlink()


def test_what_can_not_be_kept_or_read_is_computed(
    tiny_llama: Make, keeping: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    base = tiny_llama()
    layers_passed(base, ids())
    for file in kept_files():
        file.path.write_bytes(file.path.read_bytes()[:100])
    assert layers_passed(base, ids()) == [0, 1, 2]
    for file in kept_files():
        content = bytearray(file.path.read_bytes())
        content[-8] ^= 1
        file.path.write_bytes(content)
    assert layers_passed(base, ids()) == [0, 1, 2]
    assert layers_passed(base, ids()) == []
    for file in kept_files():
        # As an earlier version kept it, without a checksum.
        save_file({"h": load_file(file.path)["h"]}, file.path)
    assert layers_passed(base, ids()) == [0, 1, 2]
    monkeypatch.setattr(kept_module, "_told", set())
    keeping.rename(keeping.with_name("away"))
    keeping.write_text("no folder")
    assert layers_passed(base, ids()) == [0, 1, 2]
    assert "work is not kept" in capsys.readouterr().err


def test_no_more_is_kept_than_the_limit(
    tiny_llama: Make, keeping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_llama()
    kept = Kept.of(base, torch.float32)
    assert kept is not None
    h = torch.ones(3, LENGTH, 64)
    monkeypatch.setenv(LIMIT, str(int(2.5 * h.nbytes)))
    for i in range(4):
        kept.put(ids() + i, 1, h)
    assert sum(file.size for file in kept_files()) <= 2.5 * h.nbytes
    assert kept.get(ids() + 3, 1) is not None
    assert kept.get(ids(), 1) is None
    monkeypatch.setenv(LIMIT, "0")
    assert Kept.of(base, torch.float32) is None
