"""Opening base checkpoints: what is read, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from hubsplice.checkpoint.base import BaseCheckpoint, BaseConfig
from hubsplice.errors import CheckpointError, HubspliceError

MakeBase = Callable[..., Path]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_every_tensor_as_transformers_has_it(
    make_base: MakeBase, sharded: bool, tied: bool
) -> None:
    folder = make_base(sharded=sharded, tied=tied)
    base = BaseCheckpoint.open(folder)
    assert len(base.shards) > 1 if sharded else len(base.shards) == 1
    state = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).state_dict()
    if tied:
        del state["lm_head.weight"]
    assert set(base.tensors) == set(state)
    for name, tensor in state.items():
        loaded = base.load(name)
        assert loaded.dtype == torch.bfloat16
        assert base.tensors[name].shape == tuple(tensor.shape)
        assert torch.equal(loaded, tensor)
    assert base.config["hidden_size"] == 32
    assert base.previous_splice is None


def test_unknown_tensor_names_the_nearest(make_base: MakeBase) -> None:
    base = BaseCheckpoint.open(make_base())
    with pytest.raises(CheckpointError, match=r"Did you mean 'model\.norm\.weight'"):
        base.load("model.norm.weights")


def test_a_shard_damaged_after_opening(make_base: MakeBase) -> None:
    base = BaseCheckpoint.open(make_base())
    (base.folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: tensor .* cannot be read"):
        base.load("model.norm.weight")


def test_configuration_alone(make_base: MakeBase) -> None:
    folder = make_base(sharded=True)
    names = set(BaseCheckpoint.open(folder).tensors)
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    described = BaseConfig.open(folder)
    assert described.weight_map is not None
    assert set(described.weight_map) == names
    (folder / "model.safetensors.index.json").unlink()
    (folder / "pytorch_model.bin").unlink()
    (folder / "consolidated.00.pth").unlink()
    assert BaseConfig.open(folder).weight_map is None
    with pytest.raises(CheckpointError, match=r"no weights: neither model\.safetensors nor"):
        BaseCheckpoint.open(folder)


def test_a_spliced_base_is_recognised(make_base: MakeBase) -> None:
    folder = make_base()
    (folder / "splice.json").write_text("{}")
    assert BaseCheckpoint.open(folder).previous_splice == folder / "splice.json"


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_index(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def second_shard(folder: Path) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[1]


Damage = Callable[[Path], object]
DAMAGE: dict[str, tuple[Damage, type[HubspliceError], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), CheckpointError, "no config.json"),
    "config not JSON": (
        lambda f: (f / "config.json").write_text("{"),
        CheckpointError,
        "config.json: not valid JSON",
    ),
    "config a list": (
        lambda f: (f / "config.json").write_text("[]"),
        CheckpointError,
        "expected a JSON object, found list",
    ),
    "missing shard": (
        lambda f: second_shard(f).unlink(),
        CheckpointError,
        "missing shards: model-00002-of-",
    ),
    "truncated shard": (
        lambda f: second_shard(f).write_bytes(second_shard(f).read_bytes()[:-1]),
        CheckpointError,
        ".safetensors: truncated",
    ),
    "corrupt header": (
        lambda f: second_shard(f).write_bytes(b"\x10" + bytes(7) + b"[" * 16),
        CheckpointError,
        ".safetensors: corrupt",
    ),
    "tensor missing from its shard": (
        lambda f: edit_index(f, lambda m: m.update({"model.extra": second_shard(f).name})),
        CheckpointError,
        "tensor 'model.extra' should be in model-00002-of-",
    ),
    "tensor missing from the index": (
        lambda f: edit_index(f, lambda m: m.pop("model.norm.weight")),  # type: ignore[arg-type]
        CheckpointError,
        "it holds tensor 'model.norm.weight', which model.safetensors.index.json does not list",
    ),
    "index leads out": (
        lambda f: edit_index(f, lambda m: m.update({"x": "../x.safetensors"})),
        CheckpointError,
        "'x' is said to be in '../x.safetensors'",
    ),
    "index names a pickle": (
        lambda f: edit_index(f, lambda m: m.update({"x": "x.bin"})),
        CheckpointError,
        "'x' is said to be in 'x.bin'",
    ),
    "index without a map": (
        lambda f: (f / "model.safetensors.index.json").write_text("{}"),
        CheckpointError,
        "expected a weight_map",
    ),
    "both kinds of weights": (
        lambda f: (f / "model.safetensors").write_bytes(second_shard(f).read_bytes()),
        CheckpointError,
        "both model.safetensors and model.safetensors.index.json",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_refusals(make_base: MakeBase, kind: str) -> None:
    folder = make_base(sharded=True)
    damage, error, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises(error, match=re.escape(message)):
        BaseCheckpoint.open(folder)


def test_pickles_only(make_base: MakeBase) -> None:
    folder = make_base()
    (folder / "model.safetensors").unlink()
    for kind in (BaseConfig, BaseCheckpoint):
        with pytest.raises(
            CheckpointError, match=r"pickles only .*pytorch_model\.bin.*safetensors"
        ):
            kind.open(folder)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        BaseConfig.open(tmp_path / "none")
