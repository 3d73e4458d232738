"""What the spliced checkpoint's weight files will hold, settled before a byte is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.padded import Padded
from hubsplice.errors import CheckpointError, UnsupportedError
from hubsplice.files.safetensors_header import PAGE, Header, TensorEntry, serialize_header

DTYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


@dataclass(frozen=True)
class Zeros:
    """An all-zero tensor that takes no memory, and no room on the disk where holes are kept."""

    shape: tuple[int, ...]
    dtype: torch.dtype


NewTensor: TypeAlias = Tensor | Padded | Zeros
"""What can be written beside the base's tensors."""

Split = Callable[[TensorEntry], Sequence[TensorEntry]]
"""From a tensor of the base to the rows of it that are tensors of their own in the result."""


def unsplit(tensor: TensorEntry) -> tuple[TensorEntry, ...]:
    """The tensor as it is."""
    return (tensor,)


@dataclass(frozen=True)
class ShardLayout:
    """A base shard as it will be written.

    Attributes:
        source: the base's file.
        name: the written file's name.
        header: all bytes before the data; None where every name stays, and so the whole file.
        tensor_names: the names to be, in the order of the data.
        origins: the base's tensor that each of them is, or is rows of.
    """

    source: Header
    name: str
    header: bytes | None
    tensor_names: tuple[str, ...]
    origins: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        if self.header is None:
            return self.source.file_size
        return len(self.header) + self.source.data_size

    @property
    def can_share_blocks(self) -> bool:
        """Whether the data keeps its place in a page, as filesystems that share blocks ask for."""
        return self.header is None or (len(self.header) - self.source.data_start) % PAGE == 0


@dataclass(frozen=True)
class NewShardLayout:
    """The shard of new tensors.

    Attributes:
        name: the file's name.
        header: all bytes before the data.
        tensors: in the order of the data.
        zeros: the names of those that are left as holes.
    """

    name: str
    header: bytes
    tensors: tuple[TensorEntry, ...]
    zeros: frozenset[str]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.tensors[-1].end

    @property
    def written_size(self) -> int:
        """Bytes that are not holes."""
        return sum(t.size for t in self.tensors if t.name not in self.zeros) + len(self.header)


@dataclass(frozen=True)
class Layout:
    """All weight files of the result: one for each base shard, and one for new tensors.

    The files are always numbered and indexed: beside a file that is called model.safetensors,
    loaders would ignore the rest.

    Attributes:
        shards: the base's.
        added: that of the new tensors; none without any.
    """

    shards: tuple[ShardLayout, ...]
    added: tuple[NewShardLayout, ...]

    @staticmethod
    def of(
        base: BaseCheckpoint,
        rename: Callable[[str], str],
        new_tensors: Mapping[str, NewTensor],
        split: Split = unsplit,
    ) -> Layout:
        """Settle names, headers and places.

        Args:
            base: the base.
            rename: from the names of its tensors, or of their parts, to the written ones.
            new_tensors: to be written beside them.
            split: into the parts, which cover the tensor in the order of the data.

        Raises:
            CheckpointError: two tensors end up with one name.
            UnsupportedError: a new tensor is not of a floating-point dtype.
        """
        count = len(base.shards) + bool(new_tensors)
        names = [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
        shards = tuple(
            _renamed_shard(source, name, rename, split)
            for source, name in zip(base.shards, names, strict=False)
        )
        _refuse_collisions(base, shards, new_tensors)
        return Layout(shards, (_new_shard(names[-1], new_tensors),) if new_tensors else ())

    @property
    def index(self) -> dict[str, Any]:
        """The content of model.safetensors.index.json."""
        weight_map = {name: shard.name for shard in self.shards for name in shard.tensor_names}
        size = sum(shard.source.data_size for shard in self.shards)
        for added in self.added:
            weight_map |= {tensor.name: added.name for tensor in added.tensors}
            size += sum(tensor.size for tensor in added.tensors)
        return {"metadata": {"total_size": size}, "weight_map": weight_map}

    @property
    def total_size(self) -> int:
        """Bytes in all weight files."""
        return sum(s.size for s in self.shards) + sum(added.size for added in self.added)


def _renamed_shard(
    source: Header, name: str, rename: Callable[[str], str], split: Split
) -> ShardLayout:
    parts = [(tensor.name, part) for tensor in source.tensors for part in split(tensor)]
    origins = tuple(origin for origin, _ in parts)
    entries = [replace(part, name=rename(part.name)) for _, part in parts]
    new = tuple(entry.name for entry in entries)
    if new == tuple(tensor.name for tensor in source.tensors):
        return ShardLayout(source, name, None, new, origins)
    header = serialize_header(
        entries, source.metadata, data_start=source.data_start, same_page_offset=True
    )
    return ShardLayout(source, name, header, new, origins)


def _refuse_collisions(
    base: BaseCheckpoint, shards: Iterable[ShardLayout], new_tensors: Iterable[str]
) -> None:
    taken = dict.fromkeys(new_tensors, "a new tensor")
    for shard in shards:
        for renamed, origin in zip(shard.tensor_names, shard.origins, strict=True):
            if renamed in taken:
                raise CheckpointError(
                    f"{base.folder}: tensor {origin!r} would become {renamed!r}, which is "
                    f"{taken[renamed]} already"
                )
            taken[renamed] = f"the base's {origin!r}"


def _new_shard(name: str, new_tensors: Mapping[str, NewTensor]) -> NewShardLayout:
    described = []
    for tensor_name in new_tensors:
        tensor = new_tensors[tensor_name]
        described.append((tensor_name, tensor.dtype, tuple(tensor.shape), type(tensor) is Zeros))
        if tensor.dtype not in DTYPE_NAMES:
            raise UnsupportedError(
                f"tensor {tensor_name!r} is of {tensor.dtype}, expected a floating-point dtype: "
                f"{', '.join(map(str, DTYPE_NAMES))}"
            )
    # Wider dtypes first keeps every tensor aligned; zeros together make one long hole.
    described.sort(key=lambda item: (-item[1].itemsize, item[3], item[0]))
    relative, end = [], 0
    for tensor_name, dtype, shape, _ in described:
        start, end = end, end + dtype.itemsize * torch.Size(shape).numel()
        relative.append(TensorEntry(tensor_name, DTYPE_NAMES[dtype], shape, start, end))
    header = serialize_header(relative, {"format": "pt"}, data_start=0)
    placed = tuple(
        TensorEntry(t.name, t.dtype, t.shape, t.start + len(header), t.end + len(header))
        for t in relative
    )
    return NewShardLayout(name, header, placed, frozenset(d[0] for d in described if d[3]))
