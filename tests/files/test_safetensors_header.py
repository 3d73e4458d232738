"""The header reader against the safetensors library, and against damage of every kind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from hubsplice.errors import CheckpointError
from hubsplice.files.safetensors_header import PAGE, TensorEntry, read_header, serialize_header

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda name: name != "__metadata__"
)
# Every example writes the same file anew, so that one folder serves them all.
REUSED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@st.composite
def tensor_files(draw: st.DrawFn) -> dict[str, Tensor]:
    shapes = st.lists(st.integers(0, 4), max_size=3)
    kinds = st.tuples(st.sampled_from(sorted(DTYPES)), shapes, st.integers(0, 99))
    drawn = draw(st.dictionaries(NAMES, kinds, max_size=5))
    return {
        name: torch.full(shape, fill % 2 if dtype == "BOOL" else fill, dtype=DTYPES[dtype])
        for name, (dtype, shape, fill) in drawn.items()
    }


METADATA = st.none() | st.dictionaries(NAMES, NAMES, min_size=1, max_size=2)


def raw(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def file_of(header: str | dict[str, Any], data: bytes = b"") -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode("utf-8")
    return len(text).to_bytes(8, "little") + text + data


@REUSED_FOLDER
@given(tensor_files(), METADATA)
def test_reads_what_the_library_wrote(
    tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "a.safetensors"
    content = save(tensors, metadata)
    path.write_bytes(content)
    header = read_header(path)
    assert header.metadata == metadata
    assert header.data_start + header.data_size == len(content) == header.file_size
    assert {t.name for t in header.tensors} == set(tensors)
    for entry in header.tensors:
        tensor = tensors[entry.name]
        assert DTYPES[entry.dtype] == tensor.dtype
        assert entry.shape == tuple(tensor.shape)
        assert content[entry.start : entry.end] == raw(tensor)


@REUSED_FOLDER
@given(tensor_files(), METADATA, st.booleans(), st.integers(0, 600))
def test_the_library_reads_what_is_written(
    tmp_path: Path,
    tensors: dict[str, Tensor],
    metadata: dict[str, str] | None,
    same_page_offset: bool,
    growth: int,
) -> None:
    path = tmp_path / "a.safetensors"
    content = save(tensors, metadata)
    path.write_bytes(content)
    header = read_header(path)
    renamed = [
        TensorEntry("n" * growth + t.name, t.dtype, t.shape, t.start, t.end) for t in header.tensors
    ]
    written = serialize_header(
        renamed, metadata, data_start=header.data_start, same_page_offset=same_page_offset
    )
    assert len(written) % 8 == 0
    if same_page_offset:
        assert len(written) % PAGE == header.data_start % PAGE
    path.write_bytes(written + content[header.data_start :])
    found = load(path.read_bytes())
    assert set(found) == {"n" * growth + name for name in tensors}
    for name, tensor in tensors.items():
        again = found["n" * growth + name]
        assert again.dtype == tensor.dtype
        assert torch.equal(again, tensor)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == metadata
    assert read_header(path).metadata == metadata


def test_a_data_section_off_the_grid_is_moved_onto_it() -> None:
    entry = TensorEntry("a", "U8", (3,), 1003, 1006)
    written = serialize_header([entry], None, data_start=1003, same_page_offset=True)
    assert len(written) % 8 == 0
    assert load(written + b"abc")["a"].tolist() == [97, 98, 99]


def sample() -> bytes:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(5, dtype=torch.bfloat16)}
    return save(tensors, {"format": "pt"})


def test_truncation_at_any_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    content = sample()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut\.safetensors: truncated"):
            read_header(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="declares 34 bytes of data, and the file has 35"):
        read_header(path)


@settings(REUSED_FOLDER, max_examples=500)
@given(st.data())
def test_flipped_bytes_never_read_beyond_the_data(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "flipped.safetensors"
    content = bytearray(sample())
    header_end = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, header_end - 1))
        likely = st.sampled_from(sorted(set(content[8:header_end]) | set(b'-9e."\\{}[]')))
        content[place] = data.draw(likely | st.integers(0, 255))
    path.write_bytes(content)
    try:
        header = read_header(path)
    except CheckpointError as error:
        assert "flipped.safetensors" in str(error)  # noqa: PT017 - either outcome is right
        return
    position = header.data_start
    for entry in header.tensors:
        assert entry.start == position
        position = entry.end
    assert position == header.file_size == len(content)
    # What is accepted here the library accepts as well, and understands alike.
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == {entry.name for entry in header.tensors}
        for entry in header.tensors:
            view = file.get_slice(entry.name)
            assert (tuple(view.get_shape()), view.get_dtype()) == (entry.shape, entry.dtype)


def entry(start: int, end: int, dtype: str = "U8", shape: Any = None) -> dict[str, Any]:
    shape = [end - start] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


DAMAGE: dict[str, tuple[bytes, str]] = {
    "hole": (file_of({"a": entry(0, 2), "b": entry(3, 5)}, b"12345"), "'b' leaves a hole"),
    "hole at the start": (file_of({"a": entry(1, 2)}, b"12"), "'a' leaves a hole"),
    "overlap": (file_of({"a": entry(0, 3), "b": entry(2, 5)}, b"12345"), "'b' overlaps"),
    "same bytes twice": (file_of({"a": entry(0, 2), "b": entry(0, 2)}, b"12"), "'b' overlaps"),
    "beyond the end": (file_of({"a": entry(0, 9)}, b"12345"), "declares 9 bytes"),
    "data left over": (file_of({"a": entry(0, 2)}, b"12345"), "declares 2 bytes"),
    "wrong size": (file_of({"a": entry(0, 4, "F32", [2])}, b"1234"), "takes 8 bytes"),
    "reversed": (file_of({"a": entry(4, 0, shape=[4])}, b"1234"), "not a beginning and an end"),
    "three offsets": (
        file_of({"a": {**entry(0, 1), "data_offsets": [0, 1, 2]}}, b"1"),
        "not a beginning and an end",
    ),
    "dtype": (file_of({"a": entry(0, 4, "FP32", [1])}, b"1234"), "Did you mean 'F32'"),
    "dtype of another kind": (file_of({"a": entry(0, 4, ["F32"])}, b"1234"), "is not known"),  # type: ignore[arg-type]
    "negative size": (file_of({"a": entry(0, 1, shape=[-1, -1])}, b"1"), "not a list of sizes"),
    "boolean size": (file_of({"a": entry(0, 1, shape=[True])}, b"1"), "not a list of sizes"),
    "fractional size": (file_of({"a": entry(0, 1, shape=[1.0])}, b"1"), "not a list of sizes"),
    "overflowing shape": (
        file_of({"a": entry(0, 0, shape=[2**40, 2**40, 0])}),
        "larger than any file",
    ),
    "half a byte": (file_of({"a": entry(0, 1, "F4", [1])}, b"1"), "takes 0.5 bytes"),
    "duplicate tensor": (
        file_of('{"a":1,"a":1}'),
        "'a' is there twice",
    ),
    "duplicate field": (
        file_of('{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"1"),
        "'dtype' is there twice",
    ),
    "missing field": (file_of({"a": {"dtype": "U8", "shape": []}}), "expected exactly dtype"),
    "unknown field": (file_of({"a": {**entry(0, 1), "x": 1}}, b"1"), "expected exactly dtype"),
    "not a tensor": (file_of({"a": 3}), "expected exactly dtype"),
    "metadata": (file_of({"__metadata__": {"a": 1}}), "must map strings to strings"),
    "surrogate in the metadata": (file_of('{"__metadata__":{"a":"\\ud800"}}'), "not valid Unicode"),
    "surrogate in a name": (
        file_of(json.dumps({"\ud800": entry(0, 1)}), b"1"),
        "not valid Unicode",
    ),
    "not JSON": (file_of('{"a"'), "not valid JSON"),
    "a list": (file_of("[]"), "does not begin with '{'"),
    "leading space": (file_of(" {}"), "does not begin with '{'"),
    "no header at all": (file_of(""), "does not begin with '{'"),
    "not UTF-8": ((3).to_bytes(8, "little") + b"{\xff}", "not valid JSON"),
    "NaN": (file_of('{"a":NaN}'), "NaN is not a JSON number"),
    "endless number": (file_of('{"a":' + "9" * 5000 + "}"), "not valid JSON"),
    "nested too deeply": (file_of('{"a":' + "[" * 200_000), "nested too deeply"),
    "huge header": ((2**40).to_bytes(8, "little") + b"{}", "a header of 1099511627776 bytes"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "damaged.safetensors"
    content, message = DAMAGE[kind]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        read_header(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the file is missing"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_header(tmp_path)
