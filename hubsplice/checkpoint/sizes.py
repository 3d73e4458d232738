"""How large a base's tensors are, from the headers of its files, here or on the Hub."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hubsplice.checkpoint.base import BaseCheckpoint, BaseConfig
from hubsplice.checkpoint.resolve import ResolvedBase
from hubsplice.checkpoint.tensors import layer_of
from hubsplice.errors import CheckpointError, HubspliceError, explained_by
from hubsplice.files.safetensors_header import DTYPE_BITS
from hubsplice.transport import cause_of, is_failed_fetch

_OF_EXPERT = re.compile(r"\.experts\b")
_OTHER_TOWERS = re.compile(r"(?:^|\.)(?:vision|audio|visual|embed_vision)")
_EMBEDDINGS = re.compile(r"(?:^|\.)(?:embed_tokens|wte|embed_in|lm_head|embed_out)\.weight$")


@dataclass(frozen=True)
class BaseSizes:
    """A base's weights in numbers.

    Attributes:
        stored: bytes of all tensors.
        missing: those of them that are to be downloaded first.
        parameters: of all tensors.
        in_layers: of the decoder layers.
        in_experts: those of them that belong to experts, of which a token meets a few.
        vocabulary: rows of the embeddings.
        bytes_by_dtype: how much is stored in which precision, as safetensors spells it.
    """

    stored: int
    missing: int
    parameters: int
    in_layers: int
    in_experts: int
    vocabulary: int
    bytes_by_dtype: Mapping[str, int]


@dataclass(frozen=True)
class _Tensor:
    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        return self.parameters * DTYPE_BITS.get(self.dtype, 8) // 8


def base_sizes(resolved: ResolvedBase, base: BaseConfig) -> BaseSizes:
    """Read the headers of a base's files; on the Hub no more of a file than that.

    Raises:
        CheckpointError: the weights are damaged, or the Hub can't be asked for them.
    """
    local = resolved.complete or resolved.repo_id is None or base.has_weights
    tensors = list(_here(base) if local else _on_hub(resolved))
    absent = set() if local else {t.file for t in tensors if not (base.folder / t.file).exists()}
    in_layers = [
        t for t in tensors if layer_of(t.name) is not None and not _OTHER_TOWERS.search(t.name)
    ]
    by_dtype: dict[str, int] = {}
    for tensor in tensors:
        by_dtype[tensor.dtype] = by_dtype.get(tensor.dtype, 0) + tensor.size
    return BaseSizes(
        stored=sum(t.size for t in tensors),
        missing=sum(t.size for t in tensors if t.file in absent),
        parameters=sum(t.parameters for t in tensors),
        in_layers=sum(t.parameters for t in in_layers),
        in_experts=sum(t.parameters for t in in_layers if _OF_EXPERT.search(t.name)),
        vocabulary=max((t.shape[0] for t in tensors if _EMBEDDINGS.search(t.name)), default=0),
        bytes_by_dtype=by_dtype,
    )


def _here(base: BaseConfig) -> Iterator[_Tensor]:
    opened = base if isinstance(base, BaseCheckpoint) else BaseCheckpoint.of(base)
    for shard in opened.shards:
        for entry in shard.tensors:
            yield _Tensor(entry.name, shard.path.name, entry.dtype, entry.shape)


def _on_hub(resolved: ResolvedBase) -> Iterator[_Tensor]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    assert resolved.repo_id is not None

    def explained(error: Exception) -> HubspliceError | None:
        known = NotASafetensorsRepoError | SafetensorsParsingError
        if isinstance(error, known) or is_failed_fetch(error):
            return CheckpointError(
                f"base_model: the sizes of {resolved.repo_id!r} could not be read: "
                f"{cause_of(error)}"
            )
        return None

    with explained_by(explained):
        found = HfApi().get_safetensors_metadata(resolved.repo_id, revision=resolved.commit)
    for file, metadata in found.files_metadata.items():
        for name, tensor in metadata.tensors.items():
            yield _Tensor(name, file, tensor.dtype, tuple(tensor.shape))
