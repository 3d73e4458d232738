"""The base that comes back from a spliced model, bit for bit, for families that are unlike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from hubsplice.errors import CheckpointError, OutputError, RecipeError
from hubsplice.interface.unsplice import unsplice
from tests.building.conftest import Build
from tests.conftest import Command, MakeCheckpoint
from tests.families.logits import same_bits
from tests.families.variants import GATED, Variant, save_tiny
from tests.rebuilding.conftest import TEXT, Published
from tests.tiny_tokenizer import byte_tokenizer

NOTHING = "  - {after_layer: 1}"
BETWEEN = "  - {after_attention: 1}\n  - {after_layer: 2}"
CONSTANT = """
  - after_layer: 1
    sinks: edit
    edits: [{kind: steer, vector: {path: v.safetensors}, strength: 3}]
"""


def same_tensors(base: Path, back: Path) -> int:
    """How many tensors there are; all are the same bits under the same names in the same files."""
    names = sorted(path.name for path in base.glob("*.safetensors"))
    assert names == sorted(path.name for path in back.glob("*.safetensors"))
    count = 0
    for name in names:
        with (
            safe_open(base / name, framework="pt") as a,
            safe_open(back / name, framework="pt") as b,
        ):
            assert sorted(a.keys()) == sorted(b.keys())
            for tensor in a.keys():  # noqa: SIM118
                x, y = a.get_tensor(tensor), b.get_tensor(tensor)
                assert (x.dtype, x.shape) == (y.dtype, y.shape)
                assert same_bits(x, y)
                count += 1
            assert a.metadata() == b.metadata()
    return count


@pytest.mark.parametrize(
    ("family", "splices"),
    [
        ("llama", BETWEEN),
        ("qwen2", NOTHING),
        ("phi3", BETWEEN),
        ("phi3", CONSTANT),
    ],
)
def test_every_tensor_comes_back(
    family: str, splices: str, tiny_llama: MakeCheckpoint, make: Build, tmp_path: Path
) -> None:
    base = tiny_llama(family, max_shard_size="200KB")
    spliced = make(splices, tmp_path / "spliced", base=base, measure=False, more=TEXT).folder
    found = unsplice(spliced, tmp_path / "back", progress=False)
    assert found.tensors == same_tensors(base, tmp_path / "back")
    # transformers and safetensors write as they always do, so that all files are the base's.
    for path in base.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes(), path.name
    assert found.alike == found.missing == ()
    assert set(found.exact) == {path.name for path in base.iterdir()}


@pytest.mark.parametrize(
    "variant",
    [
        Variant("gpt2"),
        Variant("gpt_neox", {"use_parallel_residual": True, "intermediate_size": 128}),
        Variant("gemma3", GATED | {"head_dim": 16}),
        Variant("olmo2", GATED),
    ],
    ids=str,
)
def test_other_families(variant: Variant, make: Build, tmp_path: Path) -> None:
    base = save_tiny(variant, tmp_path / "base", torch.bfloat16)
    byte_tokenizer().save_pretrained(base)
    spliced = make(NOTHING, tmp_path / "spliced", base=base, measure=False, more=TEXT).folder
    found = unsplice(spliced, tmp_path / "back", progress=False)
    assert found.tensors == same_tensors(base, tmp_path / "back")
    before, after = (json.loads((f / "config.json").read_text()) for f in (base, tmp_path / "back"))
    assert before == after


def test_another_way_of_writing_is_said(
    tiny_llama: MakeCheckpoint, make: Build, tmp_path: Path
) -> None:
    base = tiny_llama("qwen2")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config))
    weights = base / "model.safetensors"
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(dict(reversed(header.items())), indent=1).encode()
    weights.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    spliced = make(NOTHING, tmp_path / "spliced", base=base, measure=False, more=TEXT).folder
    found = unsplice(spliced, tmp_path / "back", progress=False)
    assert found.alike == ("config.json", "model.safetensors")
    same_tensors(base, tmp_path / "back")
    assert json.loads((tmp_path / "back/config.json").read_text()) == config
    assert "config.json, model.safetensors" in str(found)
    assert "other headers" in found.verdict


def test_what_was_altered_is_refused(published: Published, tmp_path: Path) -> None:
    name = "model-00001-of-00002.safetensors"
    data = bytearray((published.folder / name).read_bytes())
    data[-1] ^= 1
    (published.folder / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{name}: it is not the file that splice.json lists"):
        unsplice(published.folder, tmp_path / "back", progress=False)
    assert not (tmp_path / "back").exists()
    published.forge_checksums()
    found = unsplice(published.folder, tmp_path / "back", progress=False)
    assert found.alike == ("model.safetensors",)


def test_refusals(published: Published, original: Published, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such folder"):
        unsplice(tmp_path / "none", tmp_path / "back", progress=False)
    with pytest.raises(CheckpointError, match="manifest is missing"):
        unsplice(original.base, tmp_path / "back", progress=False)
    with pytest.raises(OutputError, match="new folder or an empty one"):
        unsplice(original.folder, published.folder, progress=False)
    published.edit_json("config.json", lambda config: config.update(num_hidden_layers=3))
    with pytest.raises(CheckpointError, match=r"config\.json: it is not the file"):
        unsplice(published.folder, tmp_path / "back", progress=False)


def test_the_command(command: Command, original: Published, tmp_path: Path) -> None:
    code, out, err = command("unsplice", original.folder, "--output", tmp_path / "back")
    assert code == 0, err
    assert out.startswith("Unspliced: ")
    assert same_tensors(original.base, tmp_path / "back")
    shutil.rmtree(tmp_path / "back")
    code, out, _ = command("unsplice", original.folder, "-o", tmp_path / "back", "--json")
    assert code == 0
    assert "model.safetensors" in json.loads(out)["exact"]
