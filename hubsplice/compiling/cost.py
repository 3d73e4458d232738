"""What a build takes of a machine: bytes, memory, operations and time."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from hubsplice.checkpoint.sizes import BaseSizes
from hubsplice.compiling.probe import Speed
from hubsplice.files.space import readable_size
from hubsplice.rendering.content import Line, Part, Tone
from hubsplice.streams.aside import COPIES
from hubsplice.streams.passes import Decoding, Pass
from hubsplice.terminal import duration

_LIBRARIES = 750e6
"""Bytes that Python, PyTorch, transformers and SAELens take."""

_LOGITS_AT_ONCE = 2**25
_BYTES_PER_LOGIT = 36  # what divergence.compare holds of two models, in the dtype and in float64
_LONG = 3600.0
_READING = 1e9  # bytes a second from a disk


@dataclass(frozen=True)
class BuildCost:
    """What a build takes, as far as it can be said before.

    How much text is read in search of tokens on which the edits act is only known afterwards, so
    there are two numbers: without any, and with all that may be read and kept.

    Attributes:
        download_bytes: of the base's weights that are not here.
        disk_bytes: of the result.
        memory_bytes: the most memory at a time.
        token_layers: tokens times the layers that they go through; least and most.
        operations: floating-point operations; least and most.
        seconds: on this machine, by a short probe; least and most. Without downloads.
        device: where it is computed.
        free_memory: bytes that are free there.
        free_disk: bytes that are free in the current folder.
    """

    download_bytes: int
    disk_bytes: int
    memory_bytes: int
    token_layers: tuple[int, int]
    operations: tuple[float, float]
    seconds: tuple[float, float]
    device: str
    free_memory: int
    free_disk: int

    def __str__(self) -> str:
        parts = [
            f"{readable_size(self.memory_bytes)} of memory",
            f"{readable_size(self.disk_bytes)} of disk",
        ]
        if self.download_bytes:
            parts.append(f"{readable_size(self.download_bytes)} to download")
        low, high = self.operations
        parts.append(f"{_span(f'{low:.2g}', f'{high:.2g}')} floating-point operations")
        low, high = self.seconds
        device = "this processor" if self.device == "cpu" else self.device
        parts.append(f"{_duration_span(low, high)} on {device}")
        return f"the build takes about {', '.join(parts)}"

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do where this machine is too small or slow."""
        return tuple(self._advice())

    def content(self) -> Iterable[Part]:
        """What it takes, and the advice."""
        yield Line(str(self))
        for advice in self.advice:
            yield Line(advice, Tone.CAUTION)

    def _advice(self) -> Iterator[str]:
        elsewhere = "`--on hf-jobs --flavor …` builds it on a machine of the Hub"
        if self.memory_bytes > self.free_memory:
            yield (
                f"memory: {readable_size(self.free_memory)} are free here; close other programs, "
                f"or {elsewhere}"
            )
        if self.download_bytes + self.disk_bytes > self.free_disk:
            yield f"disk: {readable_size(self.free_disk)} are free in this folder; make room"
        if self.seconds[1] > _LONG:
            gpu = "" if self.device != "cpu" else "a GPU makes it faster; "
            yield (
                f"time: fewer tokens make it faster (calibration.tokens, fidelity.tokens, scan); "
                f"{gpu}{elsewhere}"
            )


@dataclass(frozen=True)
class Work:
    """What is computed.

    Attributes:
        passes: tokens through layers.
        generations: tokens that are generated.
    """

    passes: tuple[Pass, ...]
    generations: tuple[Decoding, ...] = ()


@dataclass(frozen=True)
class Shapes:
    """The sizes of a model that its operations follow from.

    Attributes:
        sizes: of its tensors.
        num_layers: its decoder layers.
        hidden_size: the width of the stream.
        attention_size: heads times their size.
        share_of_experts: how much of the experts a token meets.
        added_layers: how many are inserted.
    """

    sizes: BaseSizes
    num_layers: int
    hidden_size: int
    attention_size: int
    share_of_experts: float
    added_layers: int

    @property
    def met(self) -> float:
        """Parameters of a layer that a token meets."""
        sizes = self.sizes
        unmet = sizes.in_experts * (1 - self.share_of_experts)
        return (sizes.in_layers - unmet) / self.num_layers


def operations(work: Pass, shapes: Shapes, length: int) -> float:
    """Floating-point operations of a pass over sequences of some length."""
    layer = 2 * shapes.met + 4 * length * shapes.attention_size
    head = 2 * shapes.sizes.vocabulary * shapes.hidden_size
    return work.tokens * (work.layers * layer + work.read * head)


def seconds(work: Work, shapes: Shapes, length: int, speeds: Mapping[torch.dtype, Speed]) -> float:
    """How long some work takes at the speeds that were found."""
    total = 0.0
    for found in work.passes:
        speed = speeds[found.dtype]
        total += operations(found, shapes, length) * speed.per_operation
        total += found.tokens * found.read * shapes.sizes.vocabulary * speed.per_logit
        total += (shapes.sizes.stored / _READING) * (found.layers > 0)
    for generated in work.generations:
        speed = speeds[generated.dtype]
        total += generated.steps * shapes.sizes.parameters * speed.per_weight
        total += generated.read / _READING
    return total


def peak_memory(shapes: Shapes, dtype: torch.dtype, tokens: int, room: float) -> int:
    """The most memory at a time, in bytes.

    Args:
        shapes: of the model.
        dtype: the serving precision.
        tokens: of the held-out text, or of the calibration text if it is longer.
        room: bytes that weights may take; a model that takes more is read layer by layer.
    """
    sizes = shapes.sizes
    head = sizes.vocabulary * shapes.hidden_size
    is_whole = 4 * sizes.parameters <= room
    held = sizes.parameters if is_whole else max(head, sizes.in_layers // shapes.num_layers)
    weights = 4 * held
    # Files that are read into another precision are mapped while they are.
    if set(sizes.bytes_by_dtype) != {"F32"}:
        weights += sizes.stored * held // sizes.parameters
    heads = head * (4 + (0 if dtype is torch.float32 else dtype.itemsize))
    streams = COPIES * 4 * tokens * shapes.hidden_size
    logits = _BYTES_PER_LOGIT * min(_LOGITS_AT_ONCE, tokens * sizes.vocabulary)
    # Of a model that stays on the disk, nothing is held while logits are compared, and the output
    # embeddings are mapped while it runs.
    mapped = sizes.stored * head // sizes.parameters
    most = max(weights, logits) + heads if is_whole else max(weights + mapped, logits + heads)
    return int(_LIBRARIES + streams + most)


def disk(shapes: Shapes) -> int:
    """Bytes of the result."""
    layer = shapes.sizes.stored * shapes.sizes.in_layers / shapes.sizes.parameters
    return int(shapes.sizes.stored + shapes.added_layers * layer / shapes.num_layers)


def free_disk() -> int:
    """Bytes that are free in the current folder."""
    return shutil.disk_usage(Path.cwd()).free


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _duration_span(low: float, high: float) -> str:
    return _span(duration(low), duration(high))
