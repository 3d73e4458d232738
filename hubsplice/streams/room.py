"""Whether a model's weights fit into memory, by what is free or by what the user allows."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.errors import HubspliceError
from hubsplice.files.safetensors_header import DTYPE_BITS

MEMORY = "HUBSPLICE_MEMORY"
"""The environment variable that says how much memory a model's weights may take (`6GB`, `0`)."""

# The rest is for activations, logits, and what else runs on the machine.
_SHARE_OF_FREE = 0.5

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)", re.IGNORECASE)


def fits_whole(folder: Path, dtype: torch.dtype) -> bool:
    """Whether a model is better held in memory whole than read layer by layer.

    Args:
        folder: the model's.
        dtype: the precision that it is computed in.

    Raises:
        HubspliceError: the environment variable is no amount of memory.
        CheckpointError: the weights can't be read.
    """
    return weight_bytes(folder, dtype) <= room_for_weights()


def weight_bytes(folder: Path, dtype: torch.dtype) -> int:
    """What a model's weights take in memory at a precision, in bytes."""
    tensors = BaseCheckpoint.open(folder).tensors.values()
    return sum((t.end - t.start) * 8 // DTYPE_BITS[t.dtype] for t in tensors) * dtype.itemsize


def room_for_weights() -> float:
    """How many bytes a model's weights may take: what the user says, or half of what is free.

    Raises:
        HubspliceError: the environment variable is no amount of memory.
    """
    said = os.environ.get(MEMORY, "").strip()
    return parse_memory(said) if said else _SHARE_OF_FREE * free_memory()


def parse_memory(text: str, name: str = MEMORY) -> float:
    """An amount of memory in bytes, such as `6GB`; `whole` is any amount.

    Args:
        text: what the user wrote.
        name: where, for messages.

    Raises:
        HubspliceError: it is neither.
    """
    if text.lower() == "whole":
        return float("inf")
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise HubspliceError(
            f"{name}: {text!r} is no amount of memory: give one such as 6GB, 0 for none, or "
            "`whole` for any"
        )
    unit = match[2].upper()
    return float(match[1]) * _UNITS[unit if unit in _UNITS else f"{unit}B"]


def free_memory() -> int:
    """The bytes that a model may take where it is computed: on the GPUs, or in main memory."""
    if torch.cuda.is_available():
        return sum(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
    return free_main_memory()


def free_main_memory() -> int:
    """The bytes of main memory that this process may still take."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    available = _fields(Path("/proc/meminfo")).get("MemAvailable:")
    if available is not None:
        found.append(available * 1024)
    # A container may be allowed less than the machine has.
    group = Path("/sys/fs/cgroup")
    limit, used = (_number(group / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        found.append(max(0, limit - used))
    return min(found)


def give_back() -> None:
    """Give memory that nothing holds any more back to the system, where the C library keeps it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _fields(path: Path) -> Mapping[str, int]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split()[:2] for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
