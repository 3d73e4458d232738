"""The header of a safetensors file: read and checked without its data, and written again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubsplice.errors import CheckpointError, unknown_name
from hubsplice.files.plain import open_plain
from hubsplice.files.strict_json import parse_object

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

PAGE = 4096
_PREFIX = 8
_ALIGNMENT = 8
_LARGEST_HEADER = 100_000_000
_LARGEST_COUNT = 2**63 - 1
_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies in its file.

    Attributes:
        name: the tensor's name.
        dtype: as safetensors spells it (`BF16`).
        shape: the tensor's shape.
        start: first byte in the file, counted from the file's beginning.
        end: the byte after the last one, counted likewise.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes of data."""
        return self.end - self.start

    def rows(self, name: str, first: int, count: int) -> TensorEntry:
        """Some of the tensor's rows, which lie together, as a tensor of their own."""
        row = self.size // self.shape[0]
        start = self.start + first * row
        return TensorEntry(name, self.dtype, (count, *self.shape[1:]), start, start + count * row)


@dataclass(frozen=True)
class Header:
    """What a safetensors file declares.

    Attributes:
        path: the file.
        tensors: every tensor, in the order of the data.
        metadata: the `__metadata__` entry, or None where there is none.
        data_start: the first byte after the header.
        file_size: bytes in the whole file; the data section ends there.
    """

    path: Path
    tensors: tuple[TensorEntry, ...]
    metadata: Mapping[str, str] | None
    data_start: int
    file_size: int

    @property
    def data_size(self) -> int:
        """Bytes in the data section."""
        return self.file_size - self.data_start


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file; its data is not touched.

    What passes is safe to read: every byte range lies within the file, ranges neither overlap
    nor leave holes, and each has exactly the size of its dtype and shape.

    Raises:
        CheckpointError: the file is missing, truncated or corrupt; the message names the file
            and what is wrong with it.
    """
    try:
        with open_plain(path) as file:
            return header_of(path, os.fstat(file.fileno()).st_size, file.read)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: the file is missing") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def header_of(path: Path, file_size: int, read: Callable[[int], bytes]) -> Header:
    """The same of a file that is open, or lies elsewhere.

    Args:
        path: what messages call it.
        file_size: in bytes.
        read: gives the next bytes, of the number that it is told, from the file's beginning.

    Raises:
        CheckpointError: as `read_header`.
    """
    prefix = read(_PREFIX)
    _refuse_pointer(path, prefix)
    if len(prefix) < _PREFIX:
        raise CheckpointError(
            f"{path}: truncated: {file_size} bytes, and the header's size alone takes 8"
        )
    length = int.from_bytes(prefix, "little")
    if length > _LARGEST_HEADER:
        raise CheckpointError(
            f"{path}: corrupt: a header of {length} bytes is declared, and safetensors "
            f"allows {_LARGEST_HEADER}"
        )
    if _PREFIX + length > file_size:
        raise CheckpointError(
            f"{path}: truncated: a header of {length} bytes is declared, and the file has "
            f"{file_size} bytes in all"
        )
    return _checked(path, read(length), file_size)


def serialize_header(
    tensors: Sequence[TensorEntry],
    metadata: Mapping[str, str] | None,
    *,
    data_start: int,
    same_page_offset: bool = False,
) -> bytes:
    """The bytes in front of the data section: the size, and the JSON padded with spaces.

    Args:
        tensors: in the order of the data.
        metadata: the `__metadata__` entry.
        data_start: where the data section begins in the file that the entries' offsets refer to.
        same_page_offset: pad so that the new data section begins at `data_start` modulo 4096, so
            that a filesystem can share the data's blocks with the file they come from. Where
            `data_start` is not a multiple of 8, alignment wins.

    Returns:
        Bytes whose length is a multiple of 8.
    """
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [tensor.start - data_start, tensor.end - data_start],
        }
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    if same_page_offset and data_start % _ALIGNMENT == 0:
        padding = (data_start - _PREFIX - len(text)) % PAGE
    else:
        padding = -(_PREFIX + len(text)) % _ALIGNMENT
    text += b" " * padding
    return len(text).to_bytes(_PREFIX, "little") + text


def _refuse_pointer(path: Path, prefix: bytes) -> None:
    if prefix == b"version ":
        raise CheckpointError(
            f"{path}: this is a Git LFS pointer, not the weights; fetch them with `git lfs pull`"
        )


def _checked(path: Path, text: bytes, file_size: int) -> Header:
    if not text.startswith(b"{"):
        raise CheckpointError(f"{path}: corrupt: the header does not begin with '{{'")
    declared = parse_object(text, source=f"{path}: corrupt header")
    metadata = _checked_metadata(path, declared.pop("__metadata__", None))
    data_start = _PREFIX + len(text)
    tensors = [_checked_entry(path, name, raw, data_start) for name, raw in declared.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
    expected = data_start
    for tensor in tensors:
        if tensor.start != expected:
            what = "overlaps what precedes it" if tensor.start < expected else "leaves a hole"
            raise CheckpointError(
                f"{path}: corrupt: tensor {tensor.name!r} {what}: it begins at byte "
                f"{tensor.start - data_start} of the data, expected {expected - data_start}"
            )
        expected = tensor.end
    if expected != file_size:
        what = "truncated" if expected > file_size else "corrupt"
        raise CheckpointError(
            f"{path}: {what}: the header declares {expected - data_start} bytes of data, and the "
            f"file has {file_size - data_start}"
        )
    return Header(path, tuple(tensors), metadata, data_start, file_size)


def _checked_metadata(path: Path, metadata: object) -> Mapping[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{path}: corrupt: __metadata__ must map strings to strings")
    if not all(_is_unicode(text) for item in metadata.items() for text in item):
        raise CheckpointError(f"{path}: corrupt: __metadata__ is not valid Unicode")
    return metadata


def _checked_entry(path: Path, name: str, raw: object, data_start: int) -> TensorEntry:
    where = f"{path}: corrupt: tensor {name!r}"
    if not _is_unicode(name):
        raise CheckpointError(f"{where}: the name is not valid Unicode")
    if not isinstance(raw, dict) or set(raw) != _FIELDS:
        raise CheckpointError(f"{where}: expected exactly dtype, shape and data_offsets")
    dtype = raw["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise CheckpointError(unknown_name(f"{where}: dtype", dtype, DTYPE_BITS))
    shape = _checked_sizes(raw["shape"])
    if shape is None:
        raise CheckpointError(f"{where}: shape {raw['shape']!r} is not a list of sizes")
    offsets = _checked_sizes(raw["data_offsets"])
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(
            f"{where}: data_offsets {raw['data_offsets']!r} are not a beginning and an end"
        )
    bits = DTYPE_BITS[dtype]
    for size in shape:
        bits *= size
        if bits > _LARGEST_COUNT:
            raise CheckpointError(f"{where}: shape {list(shape)} is larger than any file")
    if bits != 8 * (offsets[1] - offsets[0]):
        raise CheckpointError(
            f"{where}: {dtype} of shape {list(shape)} takes {bits / 8:g} bytes, and data_offsets "
            f"hold {offsets[1] - offsets[0]}"
        )
    return TensorEntry(name, dtype, shape, data_start + offsets[0], data_start + offsets[1])


def _checked_sizes(value: object) -> tuple[int, ...] | None:
    # bool is a subclass of int, and `true` is no size.
    if not isinstance(value, list):
        return None
    if not all(type(item) is int and 0 <= item <= _LARGEST_COUNT for item in value):
        return None
    return tuple(value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
