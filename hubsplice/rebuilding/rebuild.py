"""Building a spliced model's own part again: its inserted tensors, and everything said of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hubsplice.building.record import describe
from hubsplice.checkpoint.companions import CONFIG, WEIGHTS_INDEX
from hubsplice.checkpoint.layout import Layout
from hubsplice.checkpoint.manifest import Manifest
from hubsplice.checkpoint.new_shard import write_new_shard
from hubsplice.checkpoint.writer import WrittenCheckpoint, json_bytes
from hubsplice.compiling.compiler import Compiled, added_tensors, compile_plan
from hubsplice.compiling.open_plan import OpenPlan, open_plan
from hubsplice.compiling.plan import make_plan
from hubsplice.errors import CheckpointError
from hubsplice.files.digest import FileDigest, digest_file
from hubsplice.files.meter import meter
from hubsplice.intervention.saved import INTERVENTION, save_intervention
from hubsplice.recipe.models import Recipe
from hubsplice.terminal import Progress

# Far more threads than cores would take forever, and a record may say anything.
_MOST_PER_CORE = 4

_TOKENS = 4096
"""How many tokens are kept of the calibration text, evenly spread."""


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """What a recipe gave this time.

    Attributes:
        plan: what was asked for.
        compiled: what it compiled to.
        published: the manifest of the model that was built again.
        shard: the name of the file with all tensors that are not the base's; None without any.
        tensors: their names.
        streams: the float32 stream at each splice on some of the calibration tokens, [tokens, d].
    """

    plan: OpenPlan
    compiled: Compiled
    published: Manifest
    shard: str | None
    tensors: tuple[str, ...]
    streams: tuple[Tensor, ...]

    @property
    def filled(self) -> frozenset[str]:
        """The tensors of inserted layers that an edit fills."""
        linker = self.plan.linker
        return frozenset(
            name
            for number in range(len(self.compiled.inserted))
            for name in linker.filled_names(number).values()
        )

    @property
    def manifest(self) -> Manifest:
        """The record of it; lists of files are the published model's, and there is no report."""
        files = self.published.files
        written = WrittenCheckpoint(files, self.published.base.files)
        return describe(self.plan, self.compiled, written, files, None)


def rebuild(recipe: Recipe, published: Manifest, folder: Path, progress: Progress) -> Rebuilt:
    """Compile a recipe again, and write what is not the base's: its tensors stay where they are.

    Args:
        recipe: with every local source where it is here.
        published: the manifest of the model that is built again.
        folder: where to write; empty.
        progress: told of every step.

    Raises:
        CheckpointError: the base, or an SAE, is not what the model was made from.
        HubspliceError: the recipe can't be built.
    """
    plan = open_plan(make_plan(recipe))
    _require_same_base(plan.resolved.folder, published, progress)
    _require_same_saes(plan, published)
    # Whether an SAE fits was for the build to say.
    streams: list[Tensor] = []

    def sample(found: Sequence[Tensor]) -> None:
        streams.extend(h[:: -(-len(h) // _TOKENS)].clone() for h in found)

    compiled = compile_plan(plan, progress, allow_misfit=True, observe=sample)
    linker, tensors = plan.linker, added_tensors(plan, compiled)
    layout = Layout.of(plan.base, linker.rename, tensors, plan.architecture.split)
    shard = None
    for added in layout.added:
        shard = added.name
        report = meter(added.size, partial(progress, "writing the inserted layers"))
        write_new_shard(added, folder / shard, tensors, on_done=report)
    (folder / CONFIG).write_bytes(json_bytes(linker.config(plan.dtype)))
    (folder / WEIGHTS_INDEX).write_bytes(json_bytes(layout.index))
    (folder / INTERVENTION).parent.mkdir()
    save_intervention(compiled.intervention, folder / INTERVENTION)
    return Rebuilt(plan, compiled, published, shard, tuple(tensors), tuple(streams))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads while the context lasts, as far as that is sensible here."""
    before = torch.get_num_threads()
    if count <= _MOST_PER_CORE * (os.cpu_count() or 1):
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _require_same_base(folder: Path, published: Manifest, progress: Progress) -> None:
    weights = {n: d for n, d in published.base.files.items() if n.endswith(".safetensors")}
    total = max(1, sum(digest.size for digest in weights.values()))
    report = meter(total, partial(progress, "reading the base"))
    for name, expected in weights.items():
        found = _digest(folder / name, report)
        if found != expected:
            raise CheckpointError(
                f"base: {folder / name} is not the file that the model was made from: "
                f"{f'sha256 {found.sha256}' if found else 'missing'}, expected sha256 "
                f"{expected.sha256}"
            )


def _digest(path: Path, on_read: Callable[[int], None]) -> FileDigest | None:
    try:
        return digest_file(path, on_read=on_read)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"base: {path} can't be read: {error.strerror}") from None


def _require_same_saes(plan: OpenPlan, published: Manifest) -> None:
    """Refuse an SAE whose weights have changed under its name, as those of a release can."""
    recorded = {edits.place: edits.terms for edits in published.edits}
    for planned, sae in zip(plan.splices, plan.saes, strict=True):
        expected = {t.source_sha256 for t in recorded.get(planned.place, ())} - {None}
        if sae is not None and expected and expected != {sae.sha256}:
            raise CheckpointError(
                f"{planned.field}.sae: its weights are not those that the model was made from: "
                f"sha256 {sae.sha256}, expected {', '.join(sorted(map(str, expected)))}"
            )
