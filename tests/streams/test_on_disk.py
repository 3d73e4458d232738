"""Models that stay on the disk: the same bits as transformers' own loading, in little memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hubsplice.errors import CheckpointError, HubspliceError
from hubsplice.files.ahead import FilePart, joined
from hubsplice.files.safetensors_header import read_header
from hubsplice.streams.model import decoder_layers, loaded
from hubsplice.streams.on_disk import OnDisk, held, is_in_memory
from hubsplice.streams.room import MEMORY, fits_whole, parse_memory, weight_bytes
from tests.families.logits import logits_of, padded_batch, same_bits
from tests.families.variants import VARIANTS, Variant, save_tiny

Make = Callable[..., Path]

DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory for weights."""
    monkeypatch.setenv(MEMORY, "0")


def both(folder: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, ...]:
    """Logits of a model in memory and of the same model on the disk."""
    found = []
    for memory in ("whole", "0"):
        monkeypatch.setenv(MEMORY, memory)
        found.append(logits_of(folder, dtype))
    return tuple(found)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_family_gives_the_same_bits(
    variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny(variant, tmp_path / "stored", torch.bfloat16)
    for dtype in DTYPES:
        whole, on_disk = both(folder, dtype, monkeypatch)
        assert same_bits(whole, on_disk)


@pytest.mark.parametrize("name", ["gemma3_text", "llama"])
def test_files_of_several_precisions_give_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = next(v for v in (*VARIANTS, Variant("llama")) if v.family == name)
    folder = save_tiny(variant, tmp_path / "stored", torch.float32)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for tensor in list(tensors)[::2]:
        tensors[tensor] = tensors[tensor].bfloat16()
    save_file(tensors, path, metadata={"format": "pt"})
    for dtype in DTYPES:
        whole, on_disk = both(folder, dtype, monkeypatch)
        assert same_bits(whole, on_disk)


@pytest.mark.usefixtures("streamed")
def test_a_layer_is_in_memory_only_while_it_is_entered(tiny_llama: Make) -> None:
    with loaded(tiny_llama(), torch.float32) as model:
        layers: list[Any] = list(decoder_layers(model))
        seen: list[list[bool]] = []

        def look(*_: object) -> None:
            seen.append([is_in_memory(layer.self_attn.q_proj.weight) for layer in layers])

        for layer in layers:
            layer.self_attn.register_forward_hook(look)
        model(**padded_batch())
        look()
        assert seen == [[i == j for i in range(len(layers))] for j in range(len(layers) + 1)]
        assert model.dtype is torch.float32
        assert model.device.type == "cpu"


@pytest.mark.usefixtures("streamed")
def test_a_held_layer_is_read_once_and_one_that_fails_is_dropped(
    tiny_llama: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    stored = OnDisk.stored

    def counted(on_disk: OnDisk, name: str) -> Tensor:
        read.append(name)
        return stored(on_disk, name)

    monkeypatch.setattr(OnDisk, "stored", counted)
    with loaded(tiny_llama(), torch.float32) as model:
        layer: Any = decoder_layers(model)[1]
        with held(layer):
            once = len(read)
            for _ in range(2):
                model(**padded_batch())
                assert sum("layers.1." in name for name in read) == once
        model(**padded_batch())
        assert sum("layers.1." in name for name in read) == 2 * once
        handle = layer.mlp.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(**padded_batch())
        handle.remove()
        assert layer.mlp.gate_proj.weight.untyped_storage().nbytes() == 4


@pytest.mark.usefixtures("streamed")
def test_the_next_layer_is_announced_as_one_is_read(
    tiny_llama: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_llama()
    expected: list[FilePart] = []
    monkeypatch.setattr(FilePart, "expect", lambda part: expected.append(part))
    with loaded(folder, torch.float32) as model:
        with held(decoder_layers(model)[1]):
            assert expected
        header = read_header(folder / "model.safetensors")
        for tensor in header.tensors:
            inside = any(p.start <= tensor.start and tensor.end <= p.end for p in expected)
            assert inside is ("layers.2." in tensor.name)
        expected.clear()
        model(**padded_batch())
        last = len(decoder_layers(model)) - 1
        assert {p.path.name for p in expected} == {"model.safetensors"}
        with held(decoder_layers(model)[last]):
            head = next(t for t in header.tensors if t.name == "lm_head.weight")
            assert any(p.start <= head.start and head.end <= p.end for p in expected)


def test_announcing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    FilePart(tmp_path / "gone", 0, 10).expect()
    parts = [FilePart(tmp_path / "a", 5000, 9000), FilePart(tmp_path / "b", 0, 1)]
    parts += [FilePart(tmp_path / "a", 10, 4999), FilePart(tmp_path / "a", 90000, 90001)]
    assert list(joined(parts)) == [
        FilePart(tmp_path / "a", 10, 9000),
        FilePart(tmp_path / "a", 90000, 90001),
        FilePart(tmp_path / "b", 0, 1),
    ]


@pytest.mark.usefixtures("streamed")
def test_of_embeddings_the_rows_are_read_that_are_asked_for(
    tiny_llama: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loaded(tiny_llama(), torch.float32) as model:
        table = model.get_input_embeddings()
        with held(table):
            whole = table.weight.clone()
        ids = torch.tensor([[3, 300, 3], [7, 4, 7]])
        seen: list[Tensor] = []
        table.register_forward_hook(
            lambda module, *_: seen.append(module.weight.clone()), prepend=True
        )
        assert torch.equal(table(ids), whole[ids])
        assert torch.equal(seen[0][ids], whole[ids])
        assert not torch.equal(seen[0], whole)


@pytest.mark.usefixtures("streamed")
def test_a_layer_that_could_not_be_read_is_read_again(tiny_llama: Make) -> None:
    folder = tiny_llama()
    path = folder / "model.safetensors"
    with loaded(folder, torch.float32) as model:
        wanted = model(**padded_batch()).logits
        path.rename(folder / "away")
        with pytest.raises(CheckpointError, match="cannot be read any more"):
            model(**padded_batch())
        (folder / "away").rename(path)
        assert same_bits(model(**padded_batch()).logits, wanted)


@pytest.mark.usefixtures("streamed")
def test_a_file_that_goes_away_is_named(tiny_llama: Make) -> None:
    folder = tiny_llama()
    missing = pytest.raises(CheckpointError, match="cannot be read any more")
    with missing, loaded(folder, torch.float32) as model:
        for path in folder.glob("*.safetensors"):
            path.unlink()
        model(**padded_batch())


@pytest.mark.usefixtures("streamed")
def test_missing_tensors_are_refused_on_the_disk_too(tiny_llama: Make) -> None:
    folder = tiny_llama()
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="up_proj"), loaded(folder, torch.float32):
        pass


def test_a_model_is_held_whole_where_it_fits(
    tiny_llama: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_llama()
    size = weight_bytes(folder, torch.float32)
    assert weight_bytes(folder, torch.bfloat16) * 2 == size
    assert fits_whole(folder, torch.float32)
    for memory, fits in ((str(size), True), (str(size - 1), False), ("0", False), ("whole", True)):
        monkeypatch.setenv(MEMORY, memory)
        assert fits_whole(folder, torch.float32) is fits


def test_amounts_of_memory() -> None:
    assert parse_memory("6GB") == parse_memory("6 gb") == parse_memory("6g") == 6e9
    assert parse_memory("1.5MB") == 1.5e6
    for wrong in ("six", "-1GB", "6 G B", "GB"):
        with pytest.raises(HubspliceError, match="is no amount of memory"):
            parse_memory(wrong)
