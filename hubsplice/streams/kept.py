"""Work that is kept on the disk: streams of a bare base model, from one run to the next.

What a base computes before the first edit is the same for every strength of a recipe, and for a
build that goes on where another was killed. A stream is found again by exactly what it depends on:
the contents of the base's files, the tokens, the place, the precision, the versions of the
libraries, the device and its threads. Whatever fails here only means that nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import zlib
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

from hubsplice import __version__
from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.companions import CONFIG, SINGLE_WEIGHTS
from hubsplice.errors import HubspliceError
from hubsplice.files.digest import digest_once
from hubsplice.files.unchanged import status_of
from hubsplice.streams.room import parse_memory
from hubsplice.terminal import print_note

FOLDER, LIMIT = "HUBSPLICE_CACHE", "HUBSPLICE_CACHE_LIMIT"
"""The environment variables that say where work is kept, and how much of it (`20GB`, `0`)."""

_LIMIT = 10e9
_SUFFIX = ".safetensors"
_LIBRARIES = ("torch", "transformers", "accelerate", "safetensors")

_told: set[str] = set()


def kept_folder() -> Path:
    """Where work is kept."""
    said = os.environ.get(FOLDER)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(said).expanduser() if said else Path(home) / "hubsplice" / "streams"


def kept_limit() -> float:
    """How many bytes may be kept; nothing is kept where it is 0.

    Raises:
        HubspliceError: the environment variable is no amount.
    """
    said = os.environ.get(LIMIT, "").strip()
    return parse_memory(said, LIMIT) if said else _LIMIT


@dataclass(frozen=True)
class KeptFile:
    """One kept stream: its file, its size in bytes, and when it was last of use."""

    path: Path
    size: int
    used: float


def kept_files() -> tuple[KeptFile, ...]:
    """Everything that is kept, that of use last in front."""
    found = []
    with suppress(OSError):
        for path in kept_folder().glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append(KeptFile(path, status.st_size, status.st_mtime))
    return tuple(sorted(found, key=lambda file: -file.used))


def clear_kept() -> int:
    """Remove everything that is kept, and give its size in bytes."""
    files = kept_files()
    for file in files:
        file.path.unlink(missing_ok=True)
    return sum(file.size for file in files)


@dataclass(frozen=True)
class Kept:
    """Streams of one base at one precision.

    Attributes:
        identity: what they depend on, beside tokens and place.
        files: of the base, with what tells that one was written to since.
    """

    identity: str
    files: tuple[tuple[Path, tuple[int, ...] | None], ...]

    @staticmethod
    def of(folder: Path, dtype: torch.dtype) -> Kept | None:
        """What is kept of a base, and will be; None where nothing is to be kept.

        Args:
            folder: the base's.
            dtype: the precision that it is computed in.

        Raises:
            HubspliceError: the environment variable of the limit is no amount.
            CheckpointError: the base can't be read.
        """
        if kept_limit() <= 0:
            return None
        weights = BaseConfig.open(folder).weight_map
        names = {SINGLE_WEIGHTS} if weights is None else {*weights.values()}
        cuda = torch.cuda.is_available()
        files = [folder / name for name in sorted({*names, CONFIG})]
        known = tuple((path, status_of(path)) for path in files)
        depends = {
            "files": {path.name: _digest(path) for path in files},
            "dtype": str(dtype),
            "libraries": {name: version(name) for name in _LIBRARIES},
            "hubsplice": __version__,
            "device": torch.cuda.get_device_name() if cuda else _processor(),
            "threads": torch.get_num_threads(),
        }
        return Kept(json.dumps(depends, sort_keys=True), known)

    def get(self, ids: Tensor, layer: int) -> Tensor | None:
        """The stream before a layer for one batch of tokens, [sequences, length, d], if kept."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(ids, layer)
        try:
            found = load_file(path)
            os.utime(path)
        except (OSError, SafetensorError):
            return None
        h, expected = found.get("h"), found.get("sum")
        if h is None or expected is None or h.shape[:2] != ids.shape:
            return None
        return h if torch.equal(_sum(h), expected) else None

    def put(self, ids: Tensor, layer: int, h: Tensor) -> None:
        """Keep it, and drop what has been of no use for longest where the limit is passed."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path, limit = self._path(ids, layer), kept_limit()
        new = path.with_name(f".{path.name}.{uuid4().hex}")
        if h.nbytes > limit:
            return
        if any(status_of(file) != status for file, status in self.files):
            _tell(f"{path.parent}: work is not kept: the base's files were written to meanwhile")
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # It is whole where it has its name.
            save_file({"h": h.contiguous(), "sum": _sum(h)}, new)
            new.replace(path)
            total = 0
            for file in kept_files():
                total += file.size
                if total > limit:
                    file.path.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            _tell(f"{path.parent}: work is not kept: {' '.join(str(error).split())}")

    def _path(self, ids: Tensor, layer: int) -> Path:
        digest = hashlib.sha256(f"{self.identity} {layer} {tuple(ids.shape)} ".encode())
        digest.update(ids.cpu().contiguous().numpy().astype("<i8").tobytes())
        return kept_folder() / f"{digest.hexdigest()}{_SUFFIX}"


def _sum(h: Tensor) -> Tensor:
    """What tells a damaged stream: a checksum of its bytes."""
    content = h.contiguous().view(torch.uint8).numpy()
    return torch.tensor(zlib.crc32(content.data), dtype=torch.int64)


def _digest(path: Path) -> str:
    try:
        return digest_once(path).sha256
    except OSError as error:
        raise HubspliceError(f"{path}: cannot be read: {error.strerror}") from None


def _processor() -> str:
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _tell(sentence: str) -> None:
    if not _told:
        print_note(f"note: {sentence}")
    _told.add(sentence)
