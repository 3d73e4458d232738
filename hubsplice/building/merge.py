"""A carrier and an adapter as one checkpoint: the one that a build without them gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hubsplice.adapters.carrier import Carrier
from hubsplice.adapters.opened import OpenAdapter
from hubsplice.building.reproduction import REPRODUCTION
from hubsplice.card import write_card
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.layout import DTYPE_NAMES, NewTensor, Zeros
from hubsplice.checkpoint.manifest import write_manifest
from hubsplice.checkpoint.writer import write_checkpoint
from hubsplice.errors import CheckpointError
from hubsplice.files.digest import FileDigest, digest_file
from hubsplice.files.plain import LARGEST_COMPANION, read_plain
from hubsplice.files.safetensors_header import Header
from hubsplice.files.staging import staged_directory
from hubsplice.pictures.drawing import write_pictures
from hubsplice.rendering.content import Line, Part, Tone
from hubsplice.rendering.rendered import Rendered
from hubsplice.terminal import Progress


@dataclass(frozen=True, repr=False)
class Merged(Rendered):
    """A checkpoint that was merged of a carrier and an adapter.

    Attributes:
        folder: where it is.
        differs: what is not as a direct build of the recipe would have it, one sentence each.
        warnings: what else went wrong.
    """

    folder: Path
    differs: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def content(self) -> Iterable[Part]:
        """Whether it is what a direct build gives, and what comes next."""
        if self.differs:
            yield Line("Merged. A direct build of the recipe differs:", Tone.CAUTION)
            yield from (Line(text, Tone.CAUTION) for text in self.differs)
        else:
            yield Line(
                "Merged: its weights and its configuration are those of a direct build of the "
                "recipe, byte for byte.",
                Tone.GOOD,
            )
        yield from (Line(f"warning: {text}", Tone.CAUTION) for text in self.warnings)
        yield Line(f"The spliced model is in {self.folder}")
        yield Line(
            f"Next: hubsplice measure {self.folder}: an adapter's figures are not a checkpoint's",
            Tone.FAINT,
        )


def merge(
    carrier: Carrier, adapter: Path, *, output: Path, hard_link: bool, progress: Progress
) -> Merged:
    """Write the spliced checkpoint that an adapter and its carrier say.

    Args:
        carrier: the carrier.
        adapter: the folder of an adapter for it.
        output: the new folder; missing or empty.
        hard_link: link unchanged shards rather than copy them.
        progress: told of every step.

    Raises:
        CheckpointError: the adapter is for another carrier, or was altered.
        OutputError: the folder is not empty, or can't be written.
    """
    opened = OpenAdapter.open(adapter, carrier)
    for problem in opened.problems():
        raise CheckpointError(f"{adapter}: {problem}")
    linker = opened.merged
    source = BaseCheckpoint.open(carrier.folder)
    base_shards, added = _told_apart(source, carrier)
    tensors: dict[str, NewTensor] = {
        linker.rename(original): Zeros(tensor.shape, _dtype(tensor.dtype))
        for tensor in added.tensors
        if (original := carrier.linker.original_name(tensor.name)) is not None
    }
    tensors |= opened.merged_tensors()

    def rename(name: str) -> str:
        original = carrier.linker.original_name(name)
        assert original is not None
        return linker.rename(original)

    config = linker.config(opened.dtype)
    with staged_directory(output) as folder:
        written = write_checkpoint(
            replace(source, shards=base_shards),
            folder,
            rename=rename,
            new_tensors=tensors,
            config=config,
            hard_link=hard_link,
            on_progress=lambda done, total: progress("merging", done, total),
        )
        files = dict(written.files) | _reproduction(adapter, folder)
        zeros = tuple(sorted(n for n, t in tensors.items() if isinstance(t, Zeros)))
        manifest = opened.merged_manifest().model_copy(
            update={
                "config_changes": linker.config_changes(config),
                "zero_tensors": zeros,
                "files": files,
                "fidelity": {},
            }
        )
        drawn = write_pictures(manifest, None, folder)
        write_manifest(drawn.manifest, folder)
        write_card(folder, model_id=output.resolve().name)
    return Merged(output, tuple(_differences(opened)), drawn.lost)


def _told_apart(source: BaseCheckpoint, carrier: Carrier) -> tuple[tuple[Header, ...], Header]:
    """The files with the base's tensors, and the one with what the carrier added."""
    first = carrier.linker.filled_names(0)["gate_weight"]
    added = [s for s in source.shards if any(t.name == first for t in s.tensors)]
    others = tuple(shard for shard in source.shards if shard not in added)
    inserted = [
        tensor.name
        for shard in others
        for tensor in shard.tensors
        if carrier.linker.original_name(tensor.name) is None
    ]
    if len(added) != 1 or inserted:
        raise CheckpointError(
            f"{carrier.folder}: the tensors that were added to the base are not in a file of their "
            "own, as hubsplice writes them"
        )
    return others, added[0]


def _dtype(name: str) -> torch.dtype:
    return next(dtype for dtype, stored in DTYPE_NAMES.items() if stored == name)


def _reproduction(adapter: Path, folder: Path) -> dict[str, FileDigest]:
    """Copy what a build again needs; what was measured of the adapter stays with it."""
    (folder / REPRODUCTION[0]).parent.mkdir(exist_ok=True)
    found = {}
    for name in REPRODUCTION:
        (folder / name).write_bytes(read_plain(adapter / name, LARGEST_COMPANION))
        found[name] = digest_file(folder / name)
    return found


def _differences(adapter: OpenAdapter) -> Iterator[str]:
    for layer in adapter.manifest.layers:
        if adapter.carrier.slots.silent and layer.terms:
            yield (
                f"layer {layer.place}: its norms are the carrier's, which leave out one channel; a "
                "direct build chooses norms for the edit"
            )
        rounded = layer.constants.get("rounded_biases")
        if rounded:
            yield (
                f"layer {layer.place}: {rounded} biases are rounded once more, to what the adapter "
                "has room for"
            )
