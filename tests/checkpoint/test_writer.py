"""Rewriting real tiny models, reloaded by transformers and compared byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import LlamaForCausalLM

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.layout import NewTensor, Zeros
from hubsplice.checkpoint.padded import Padded
from hubsplice.checkpoint.writer import WrittenCheckpoint, write_checkpoint
from hubsplice.errors import CheckpointError, OutputError, UnsupportedError
from hubsplice.files import digest as digests_module
from hubsplice.files.digest import FileDigest
from hubsplice.files.safetensors_header import Header, TensorEntry, read_header
from hubsplice.files.space import holes_take_room
from hubsplice.files.stream import BLOCK

MakeBase = Callable[..., Path]
INSERTED = 2


def shifted(name: str) -> str:
    """The name after a layer is inserted at `INSERTED`."""
    return re.sub(r"(?<=layers\.)\d+", lambda m: str(int(m[0]) + (int(m[0]) >= INSERTED)), name)


def unchanged(name: str) -> str:
    return name


def inserted_layer(dtype: torch.dtype = torch.bfloat16) -> dict[str, NewTensor]:
    prefix = f"model.layers.{INSERTED}"
    generator = torch.Generator().manual_seed(1)
    return {
        f"{prefix}.input_layernorm.weight": torch.ones(32, dtype=dtype),
        f"{prefix}.post_attention_layernorm.weight": torch.ones(32, dtype=dtype),
        f"{prefix}.mlp.down_proj.weight": torch.randn(32, 48, generator=generator).to(dtype),
        f"{prefix}.mlp.up_proj.weight": torch.randn(32, 48, generator=generator).to(dtype).T,
        f"{prefix}.mlp.gate_proj.weight": Zeros((48, 32), dtype),
        f"{prefix}.self_attn.q_proj.weight": Zeros((32, 32), dtype),
        f"{prefix}.self_attn.k_proj.weight": Zeros((16, 32), dtype),
        f"{prefix}.self_attn.v_proj.weight": Zeros((16, 32), dtype),
        f"{prefix}.self_attn.o_proj.weight": Zeros((32, 32), dtype),
    }


def splice(base: BaseCheckpoint, destination: Path) -> WrittenCheckpoint:
    return write_checkpoint(
        base,
        destination,
        rename=shifted,
        new_tensors=inserted_layer(),
        config={**base.config, "num_hidden_layers": 4},
    )


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_every_tensor(
    make_base: MakeBase, tmp_path: Path, sharded: bool, tied: bool
) -> None:
    base = BaseCheckpoint.open(make_base(sharded=sharded, tied=tied))
    out = tmp_path / "out"
    splice(base, out)
    model, info = LlamaForCausalLM.from_pretrained(
        out, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    state = model.state_dict()
    expected = {shifted(name): base.load(name) for name in base.tensors}
    for name, tensor in inserted_layer().items():
        assert not isinstance(tensor, Padded)
        expected[name] = (
            torch.zeros(tensor.shape, dtype=tensor.dtype) if isinstance(tensor, Zeros) else tensor
        )
    if tied:
        assert "lm_head.weight" not in expected
        assert model.lm_head.weight is model.model.embed_tokens.weight
        expected["lm_head.weight"] = expected["model.embed_tokens.weight"]
    assert set(state) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def copies(base: BaseCheckpoint, out: Path) -> list[tuple[Header, Path]]:
    """Each shard of the base, and the file that was written for it."""
    written = sorted(out.glob("*.safetensors"))[: len(base.shards)]
    return list(zip(base.shards, written, strict=True))


def assert_digests(folder: Path, digests: Mapping[str, FileDigest]) -> None:
    for name, digest in digests.items():
        content = (folder / name).read_bytes()
        assert digest.sha256 == hashlib.sha256(content).hexdigest(), name
        assert digest.size == len(content), name


def longer(name: str) -> str:
    """A name that makes the header outgrow the one that it replaces."""
    return shifted(name).replace("model.", "model.language_model.")


@pytest.mark.parametrize("rename", [shifted, longer])
@pytest.mark.parametrize("sharded", [False, True])
def test_data_sections_are_the_bases(
    make_base: MakeBase, tmp_path: Path, sharded: bool, rename: Callable[[str], str]
) -> None:
    base = BaseCheckpoint.open(make_base(sharded=sharded))
    out = tmp_path / "out"
    written = write_checkpoint(base, out, rename=rename, new_tensors={}, config=base.config)
    for shard, copy in copies(base, out):
        content = copy.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        assert content[start:] == shard.path.read_bytes()[shard.data_start :]
        assert start % 4096 == shard.data_start % 4096
        with safe_open(copy, framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
    assert_digests(out, written.files)
    assert_digests(base.folder, written.base_files)


def test_a_known_digest_of_the_base_is_taken(
    make_base: MakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests_module, "_SETTLED_SECONDS", -1.0)
    base = BaseCheckpoint.open(make_base(sharded=True))
    # One that is not true shows that it was taken.
    other = digests_module.digest_bytes(b"")
    for shard in base.shards:
        digests_module.remember_digest(shard.path.stat(), other)
    written = write_checkpoint(
        base, tmp_path / "out", rename=shifted, new_tensors={}, config=base.config
    )
    assert other in written.base_files.values()
    assert_digests(tmp_path / "out", written.files)


def test_names_index_and_companions(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base())
    out = tmp_path / "out"
    written = splice(base, out)
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == set(written.files)
    carried = {
        "LICENSE.txt",
        "USE_POLICY.md",
        "additional_chat_templates/tools.jinja",
        "chat_template.jinja",
        "generation_config.json",
        "tokenizer.json",
    }
    assert found == carried | {
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    }
    for name in carried:
        assert (out / name).read_bytes() == (base.folder / name).read_bytes()
        assert written.files[name] == written.base_files[name]
    assert set(written.base_files) == carried | {"config.json", "model.safetensors"}
    assert_digests(out, written.files)
    assert_digests(base.folder, written.base_files)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(
        t.size for t in BaseCheckpoint.open(out).tensors.values()
    )
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == 4


def test_same_input_same_bytes(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base(sharded=True))
    first = splice(base, tmp_path / "first")
    reordered = dict(reversed(inserted_layer().items()))
    second = write_checkpoint(
        BaseCheckpoint.open(base.folder),
        tmp_path / "second",
        rename=shifted,
        new_tensors=reordered,
        config=dict(reversed({**base.config, "num_hidden_layers": 4}.items())),
    )
    assert first == second


def test_a_splice_of_a_splice(make_base: MakeBase, tmp_path: Path) -> None:
    splice(BaseCheckpoint.open(make_base(sharded=True)), tmp_path / "once")
    (tmp_path / "once" / "splice.json").write_text("{}")
    base = BaseCheckpoint.open(tmp_path / "once")
    written = write_checkpoint(
        base, tmp_path / "twice", rename=unchanged, new_tensors={}, config=base.config
    )
    assert "splice.json" in written.base_files
    assert "splice.json" not in written.files
    for shard, copy in copies(base, tmp_path / "twice"):
        assert copy.name == shard.path.name
        assert copy.read_bytes() == shard.path.read_bytes()
        assert copy.stat().st_ino != shard.path.stat().st_ino


def test_hard_links_on_request_and_only_for_unchanged_shards(
    make_base: MakeBase, tmp_path: Path
) -> None:
    base = BaseCheckpoint.open(make_base(sharded=True))
    # A model cache holds symbolic links to its blobs.
    linked = base.shards[0].path
    blob = tmp_path / "blob"
    linked.rename(blob)
    linked.symlink_to(blob)
    written = write_checkpoint(
        base,
        tmp_path / "out",
        rename=shifted,
        new_tensors=inserted_layer(),
        config=base.config,
        hard_link=True,
    )
    assert_digests(tmp_path / "out", written.files)
    assert_digests(base.folder, written.base_files)
    same_file = {}
    for shard, copy in copies(base, tmp_path / "out"):
        same_file[shard.path.name] = copy.samefile(shard.path)
        assert not copy.is_symlink()
        renamed = any(shifted(t.name) != t.name for t in shard.tensors)
        assert same_file[shard.path.name] is not renamed
    assert set(same_file.values()) == {True, False}


def test_zeros_take_no_room(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base())
    shape = (4096, 4096)
    new: Mapping[str, NewTensor] = {
        "a": torch.ones(3, dtype=torch.float32),
        "z": Zeros(shape, torch.bfloat16),
        "scalar": torch.tensor(2.0, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
    }
    write_checkpoint(base, tmp_path / "out", rename=unchanged, new_tensors=new, config=base.config)
    shard = tmp_path / "out" / "model-00002-of-00002.safetensors"
    assert shard.stat().st_size > 2 * 4096 * 4096
    assert holes_take_room(tmp_path) or shard.stat().st_blocks * 512 < 1 << 20
    with safe_open(shard, framework="pt") as file:
        zeros = file.get_tensor("z")
        assert zeros.shape == shape
        assert zeros.dtype == torch.bfloat16
        assert not zeros.any()
        assert torch.equal(file.get_tensor("a"), torch.ones(3))
        assert file.get_tensor("scalar").item() == 2.0
        assert file.get_tensor("empty").shape == (0, 4)


def test_holes_take_their_room_at_once_in_memory(make_base: MakeBase) -> None:
    if not holes_take_room(Path("/dev/shm")):
        pytest.skip("there is no filesystem in memory here")
    base = BaseCheckpoint.open(make_base())
    new = {"padded": torch.zeros(1024, 1024, dtype=torch.bfloat16)}
    with TemporaryDirectory(dir="/dev/shm") as folder:
        out = Path(folder, "out")
        written = write_checkpoint(base, out, rename=unchanged, new_tensors=new, config=base.config)
        assert_digests(out, written.files)
        shard = out / "model-00002-of-00002.safetensors"
        # Reading a hole there through a mapping would take the room then, or kill the process.
        assert shard.stat().st_blocks * 512 >= 1024 * 1024 * 2


def test_padding_takes_no_room_and_negative_zeros_stay(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base())
    padded = torch.zeros(4096, 4096, dtype=torch.bfloat16)
    padded[3] = 1
    padded[4095, 4095] = -0.0
    turned = torch.arange(3 << 20, dtype=torch.float32).reshape(1024, -1).T
    new = {"padded": padded, "turned": turned}
    written = write_checkpoint(
        base, tmp_path / "out", rename=unchanged, new_tensors=new, config=base.config
    )
    assert_digests(tmp_path / "out", written.files)
    result = BaseCheckpoint.open(tmp_path / "out")
    assert torch.equal(result.load("padded").view(torch.int16), padded.view(torch.int16))
    assert torch.equal(result.load("turned"), turned)
    shard = tmp_path / "out" / "model-00002-of-00002.safetensors"
    turned_size, pieces = 4 * turned.numel(), 2 * (4 << 20)
    room = shard.stat().st_blocks * 512
    assert holes_take_room(tmp_path) or room < turned_size + pieces + (1 << 20)


def test_padding_is_written_as_the_dense_tensor(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base())
    random = torch.Generator().manual_seed(2)

    def filled(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).bfloat16()

    # Each but the last four is more than is written at once.
    padded = {
        "columns": Padded(filled(1030, 3), (1030, 4096)),
        "rows": Padded(filled(1025, 2048), (2050, 2048)),
        "both": Padded(filled(1025, 1), (2050, 2048)),
        "turned": Padded(filled(5, 1030).T, (1030, 4096)),
        "neither": Padded(filled(1, 5), (1, 5)),
        "column": Padded(filled(5, 3)[:, :1], (7, 6)),
        "turned row": Padded(filled(1, 5).T, (7, 6)),
        "vector": Padded(filled(4), (7,)),
    }
    dense = {}
    for name, tensor in padded.items():
        dense[name] = torch.zeros(tensor.shape, dtype=torch.bfloat16)
        dense[name][tuple(map(slice, tensor.corner.shape))] = tensor.corner

    def write(name: str, new: Mapping[str, NewTensor]) -> WrittenCheckpoint:
        return write_checkpoint(
            base, tmp_path / name, rename=unchanged, new_tensors=new, config=base.config
        )

    assert write("padded", padded) == write("dense", dense)
    result = BaseCheckpoint.open(tmp_path / "padded")
    for name, expected in dense.items():
        assert torch.equal(result.load(name), expected)


def test_padded_tensors_must_be_finite(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base())
    new = {"x": Padded(torch.tensor([[1.0, float("nan")]]), (4, 4))}
    with pytest.raises(CheckpointError, match="new tensor 'x' holds NaN or Inf"):
        write_checkpoint(
            base, tmp_path / "out", rename=unchanged, new_tensors=new, config=base.config
        )


def test_collisions(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base())
    for rename, new, message in (
        (unchanged, inserted_layer(), "would become 'model.layers.2.* which is a new tensor"),
        (lambda _: "same", {}, "would become 'same', which is the base's '.*' already"),
    ):
        with pytest.raises(CheckpointError, match=message):
            write_checkpoint(
                base, tmp_path / "out", rename=rename, new_tensors=new, config=base.config
            )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_new_tensors_must_be_finite(make_base: MakeBase, tmp_path: Path, value: float) -> None:
    base = BaseCheckpoint.open(make_base())
    with pytest.raises(CheckpointError, match="new tensor 'x' holds NaN or Inf"):
        write_checkpoint(
            base,
            tmp_path / "out",
            rename=unchanged,
            new_tensors={"x": torch.tensor([1.0, value])},
            config=base.config,
        )


def test_new_tensors_must_be_floating_point(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base())
    with pytest.raises(UnsupportedError, match=r"'x' is of torch\.int64"):
        write_checkpoint(
            base,
            tmp_path / "out",
            rename=unchanged,
            new_tensors={"x": torch.tensor([1])},
            config=base.config,
        )


def test_nothing_is_overwritten(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base())
    splice(base, tmp_path / "out")
    with pytest.raises(FileExistsError):
        splice(base, tmp_path / "out")


@pytest.mark.parametrize("sharded", [False, True])
def test_a_base_that_shrinks_meanwhile(make_base: MakeBase, tmp_path: Path, sharded: bool) -> None:
    base = BaseCheckpoint.open(make_base(sharded=sharded))
    path = base.shards[-1].path
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"\.safetensors: the file changed while"):
        splice(base, tmp_path / "out")


def test_a_base_whose_header_changed(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base())
    path = base.shards[0].path
    path.write_bytes(path.read_bytes().replace(b"q_proj", b"Q_proj"))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: the file changed while"):
        splice(base, tmp_path / "out")


@pytest.mark.parametrize("rename", [unchanged, shifted])
def test_a_base_that_changes_meanwhile(
    make_base: MakeBase, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    base = BaseCheckpoint.open(make_base())
    path = base.shards[0].path
    content = path.read_bytes()

    def change(done: int, total: int) -> None:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(CheckpointError, match=r"model\.safetensors: the file changed while"):
        write_checkpoint(
            base,
            tmp_path / "out",
            rename=rename,
            new_tensors={},
            config=base.config,
            on_progress=change,
        )


def test_a_corrupt_model_cache(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base())
    path = base.shards[0].path
    content = path.read_bytes()
    blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir()
    path.rename(blob)
    path.symlink_to(blob)
    splice(base, tmp_path / "whole")
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=f"corrupt: the Hub's file has .* {blob.name}, and"):
        splice(base, tmp_path / "corrupt")


def large_base(folder: Path, size: int) -> Path:
    """A base of one tensor of `size` random bytes."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    tensors = {"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(random.Random(0).randbytes(size))
    return folder


@pytest.mark.parametrize("longest", [3, 2 * BLOCK + 5])
def test_weights_and_headers_of_several_blocks(tmp_path: Path, longest: int) -> None:
    base = BaseCheckpoint.open(large_base(tmp_path / "base", 6 * BLOCK + 6))
    out = tmp_path / "out"
    written = write_checkpoint(
        base, out, rename=lambda name: "n" * longest, new_tensors={}, config=base.config
    )
    assert_digests(out, written.files)
    assert_digests(base.folder, written.base_files)
    result = BaseCheckpoint.open(out)
    assert torch.equal(
        result.load("n" * longest).view(torch.uint8), base.load("w").view(torch.uint8)
    )


@pytest.mark.parametrize("rename", [unchanged, str.upper])
def test_blocks_are_shared(reflink_folder: Path, rename: Callable[[str], str]) -> None:
    size = 64 << 20
    base = BaseCheckpoint.open(large_base(reflink_folder / "base", size))
    os.sync()
    before = shutil.disk_usage(reflink_folder).used
    out = reflink_folder / "out"
    written = write_checkpoint(base, out, rename=rename, new_tensors={}, config=base.config)
    os.sync()
    assert shutil.disk_usage(reflink_folder).used - before < size // 8
    assert_digests(out, written.files)
    assert_digests(base.folder, written.base_files)


def test_progress_reaches_its_end(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base(sharded=True))
    reports: list[tuple[int, int]] = []
    write_checkpoint(
        base,
        tmp_path / "out",
        rename=shifted,
        new_tensors=inserted_layer(),
        config=base.config,
        on_progress=lambda done, total: reports.append((done, total)),
    )
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert len({total for _, total in reports}) == 1
    assert reports[-1][0] == reports[-1][1]


def test_more_than_the_disk_holds_is_refused_at_once(make_base: MakeBase, tmp_path: Path) -> None:
    # An expanded tensor claims a petabyte and holds one number.
    huge = torch.zeros(1, dtype=torch.float32).expand(1 << 48)
    base = BaseCheckpoint.open(make_base())
    with pytest.raises(OutputError, match=r"not enough space: 1\.13e\+03 TB are needed, .* free"):
        write_checkpoint(
            base, tmp_path / "out", rename=unchanged, new_tensors={"x": huge}, config=base.config
        )
    assert list((tmp_path / "out").iterdir()) == []


MEMORY = """
import json, resource, sys
from pathlib import Path
import torch
from hubsplice.families.architecture import architecture_of
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.layout import Zeros
from hubsplice.checkpoint.padded import Padded
from hubsplice.checkpoint.writer import write_checkpoint

base, out, size = BaseCheckpoint.open(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])
new = {
    "z": Zeros((size // 2,), torch.bfloat16),
    "a": torch.ones(8),
    "p": Padded(torch.ones(size >> 15, 3), (size >> 15, 1 << 12)),
}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_checkpoint(base, out, rename=lambda n: n + "x", new_tensors=new, config=base.config)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([grown, "transformers" in sys.modules]))
"""


def test_memory_does_not_grow_with_the_weights(tmp_path: Path) -> None:
    size = 256 << 20
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    tensors = {"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}
    header = json.dumps(tensors).encode()
    with (base / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    arguments = [sys.executable, "-c", MEMORY, str(base), str(tmp_path / "out"), str(size)]
    printed = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    grown, imports_transformers = json.loads(printed)
    assert grown * 1024 < size // 4
    # Importing it takes more memory than writing does.
    assert not imports_transformers


def halves(tensor: TensorEntry) -> tuple[TensorEntry, ...]:
    """Every up_proj cut between two of its rows, and all else as it is."""
    if "up_proj" not in tensor.name:
        return (tensor,)
    first = tensor.shape[0] // 4
    return (
        tensor.rows(tensor.name.replace("up_proj", "first"), 0, first),
        tensor.rows(tensor.name.replace("up_proj", "rest"), first, tensor.shape[0] - first),
    )


@pytest.mark.parametrize("sharded", [False, True])
def test_a_tensor_is_split_by_the_header_alone(
    make_base: MakeBase, tmp_path: Path, sharded: bool
) -> None:
    base = BaseCheckpoint.open(make_base(sharded=sharded))
    out = tmp_path / "out"
    written = write_checkpoint(
        base, out, rename=shifted, new_tensors={}, config=base.config, split=halves
    )
    for shard, copy in copies(base, out):
        header = read_header(copy)
        assert copy.read_bytes()[header.data_start :] == shard.path.read_bytes()[shard.data_start :]
    assert_digests(out, written.files)
    after = BaseCheckpoint.open(out)
    split = [name for name in base.tensors if "up_proj" in name]
    assert split
    for name in split:
        parts = [after.load(shifted(name.replace("up_proj", part))) for part in ("first", "rest")]
        assert len(parts[1]) > len(parts[0]) > 0
        assert torch.equal(torch.cat(parts), base.load(name))
    assert len(after.tensors) == len(base.tensors) + len(split)


def test_parts_that_collide_are_named_by_their_tensor(make_base: MakeBase, tmp_path: Path) -> None:
    base = BaseCheckpoint.open(make_base())
    with pytest.raises(CheckpointError, match=r"mlp\.up_proj\.weight' would become 'same'"):
        write_checkpoint(
            base,
            tmp_path / "out",
            rename=lambda name: "same" if "first" in name or "rest" in name else name,
            new_tensors={},
            config=base.config,
            split=halves,
        )
