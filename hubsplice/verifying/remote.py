"""Single tensors of a repository: of its files, only the bytes that are asked for are fetched."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from hubsplice.checkpoint.layout import DTYPE_NAMES
from hubsplice.errors import CheckpointError
from hubsplice.files.safetensors_header import TensorEntry, header_of
from hubsplice.verifying.source import fetch_errors


class RemoteTensors:
    """The tensors of some safetensors files of a repository, at one commit.

    Headers are fetched at once, and checked as those of local files are.

    Raises:
        CheckpointError: a file is missing or damaged, or the server gives other bytes than asked.
        HubError: the Hub refuses, or can't be reached.
    """

    def __init__(self, repo_id: str, commit: str, files: Collection[str]) -> None:
        self._repo_id, self._commit = repo_id, commit
        self._entries: dict[str, tuple[str, IO[bytes], TensorEntry]] = {}
        for name in sorted(files):
            with fetch_errors(repo_id, commit):
                self._open(name)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def read(self, name: str) -> Tensor:
        """Fetch one tensor."""
        path, file, entry = self._entries[name]
        dtype = next((d for d, known in DTYPE_NAMES.items() if known == entry.dtype), None)
        if dtype is None:
            raise CheckpointError(f"{path}: {name}: found {entry.dtype}, expected floats")
        if not entry.size:
            return torch.empty(entry.shape, dtype=dtype)
        with fetch_errors(self._repo_id, self._commit):
            file.seek(entry.start)
            data = file.read(entry.size)
        if len(data) != entry.size:
            raise CheckpointError(
                f"{path}: {name}: the server gave {len(data)} bytes, and was asked for {entry.size}"
            )
        return torch.frombuffer(bytearray(data), dtype=dtype).reshape(entry.shape)

    def _open(self, name: str) -> None:
        from huggingface_hub import HfFileSystem

        path = f"{self._repo_id}@{self._commit}/{name}"
        try:
            # Without a cache, which would read ahead.
            file: Any = HfFileSystem().open(path, "rb", cache_type="none")
        except FileNotFoundError:
            raise CheckpointError(f"{path}: the file is missing") from None
        header = header_of(Path(path), file.size, file.read)
        for entry in header.tensors:
            self._entries[entry.name] = path, file, entry
