"""Writing the spliced checkpoint: the base's data read once for all purposes, one shard added."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.base_shard import write_base_shard
from hubsplice.checkpoint.companions import CONFIG, MANIFEST, WEIGHTS_INDEX, companion_files
from hubsplice.checkpoint.layout import Layout, NewTensor, Split, unsplit
from hubsplice.checkpoint.new_shard import write_new_shard
from hubsplice.files.copying import clone_file
from hubsplice.files.digest import FileDigest, digest_bytes, digest_file
from hubsplice.files.plain import LARGEST_COMPANION, read_plain
from hubsplice.files.space import full_disk, holes_take_room, require_free_space

# Each takes one or two cores for its digests; more of them outrun most disks.
_SHARDS_AT_ONCE = 2


@dataclass(frozen=True)
class WrittenCheckpoint:
    """What was written, and what it was written from.

    Attributes:
        files: every written file, by its name relative to the destination.
        base_files: every file of the base that was read for it, by its name in the base.
    """

    files: Mapping[str, FileDigest]
    base_files: Mapping[str, FileDigest]


def write_checkpoint(
    base: BaseCheckpoint,
    destination: Path,
    *,
    rename: Callable[[str], str],
    new_tensors: Mapping[str, NewTensor],
    config: Mapping[str, Any],
    split: Split = unsplit,
    hard_link: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> WrittenCheckpoint:
    """Write the base under new tensor names, with new tensors beside its own.

    The data section of every base shard is carried over byte for byte: each byte is read once,
    and what is hashed for the base, hashed for the result and written is the same memory. What a
    disk that accepts it keeps of it, only reading it again can tell, against these digests.
    Memory holds a few MiB beside the new tensors. The same input gives the same bytes.

    Args:
        base: the base.
        destination: a folder, made if it is missing, such as `staged_directory` yields; no file
            in it is overwritten, and what an error leaves in it is the caller's to remove.
        rename: from the base's tensor names, or those that `split` gives, to the written ones.
        new_tensors: written to a shard of their own; each is asked for twice and not kept.
        config: written as config.json.
        split: from a tensor of the base to tensors of some of its rows each, which cover it in
            the order of the data: the header tells them apart, and no byte of data moves.
        hard_link: link shards whose names all stay, so that base and result share one file;
            a write in place to one then changes the other.
        on_progress: called with bytes done and bytes in all; at times from another thread,
            never twice at once.

    Raises:
        CheckpointError: two tensors end up with one name, a new tensor is not finite, the base
            changes underneath, or a model cache holds something else than its name says.
        UnsupportedError: a new tensor is not of a floating-point dtype.
        OutputError: the disk is full.
    """
    plan = Layout.of(base, rename, new_tensors, split)
    destination.mkdir(exist_ok=True)
    try:
        require_free_space(destination, _bytes_to_write(plan, destination, hard_link))
        return _write(plan, base, destination, new_tensors, config, hard_link, on_progress)
    except OSError as error:
        explained = full_disk(error, destination, plan.total_size)
        if explained is None:
            raise
        raise explained from None


def _bytes_to_write(plan: Layout, destination: Path, hard_link: bool) -> int:
    whole = holes_take_room(destination)
    added = sum(shard.size if whole else shard.written_size for shard in plan.added)
    copied = [s for s in plan.shards if not (hard_link and s.header is None)]
    if copied and _can_clone(copied[0].source.path, destination):
        copied = [s for s in copied if not s.can_share_blocks]
    return added + sum(shard.size for shard in copied)


def _can_clone(source: Path, destination: Path) -> bool:
    """Whether the destination's filesystem shares blocks with the source: tried, then undone."""
    trial = destination / ".clone-trial"
    with source.open("rb") as file, trial.open("xb") as copy:
        try:
            return clone_file(file.fileno(), copy.fileno())
        finally:
            trial.unlink()


def _write(
    plan: Layout,
    base: BaseCheckpoint,
    destination: Path,
    new_tensors: Mapping[str, NewTensor],
    config: Mapping[str, Any],
    hard_link: bool,
    on_progress: Callable[[int, int], None] | None,
) -> WrittenCheckpoint:
    files: dict[str, FileDigest] = {}
    base_files: dict[str, FileDigest] = {}
    progress = _Progress(plan.total_size, on_progress)
    with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
        copied = [
            pool.submit(
                write_base_shard,
                shard,
                destination / shard.name,
                hard_link=hard_link,
                on_done=progress.add,
            )
            for shard in plan.shards
        ]
        added = [
            pool.submit(
                write_new_shard,
                shard,
                destination / shard.name,
                new_tensors,
                on_done=progress.add,
            )
            for shard in plan.added
        ]
        try:
            jobs: list[Future[Any]] = [*copied, *added]
            for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                job.result()
        except BaseException:
            progress.stop()
            pool.shutdown(cancel_futures=True)
            raise
    for shard, job in zip(plan.shards, copied, strict=True):
        base_files[shard.source.path.name], files[shard.name] = job.result()
    for new, job in zip(plan.added, added, strict=True):
        files[new.name] = job.result()
    for name in companion_files(base.folder):
        content = read_plain(base.folder / name, LARGEST_COMPANION)
        base_files[name] = files[name] = _write_new_file(destination / name, content)
    for name in (CONFIG, WEIGHTS_INDEX, MANIFEST):
        if (base.folder / name).exists():
            base_files[name] = digest_file(base.folder / name)
    files[CONFIG] = _write_new_file(destination / CONFIG, json_bytes(config))
    files[WEIGHTS_INDEX] = _write_new_file(destination / WEIGHTS_INDEX, json_bytes(plan.index))
    return WrittenCheckpoint(dict(sorted(files.items())), dict(sorted(base_files.items())))


class _Progress:
    """Counts bytes from several threads, reports them one call at a time, and can end it all."""

    def __init__(self, total: int, report: Callable[[int, int], None] | None) -> None:
        self._total, self._report = total, report
        self._done = 0
        self._stopped = False
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count; raises `CancelledError` after `stop`."""
        with self._lock:
            if self._stopped:
                raise CancelledError
            self._done += count
            if self._report is not None:
                self._report(self._done, self._total)

    def stop(self) -> None:
        """Let every other thread fail at its next report."""
        with self._lock:
            self._stopped = True


def _write_new_file(path: Path, content: bytes) -> FileDigest:
    path.parent.mkdir(exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
    return digest_bytes(content)


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """JSON as the files of a checkpoint have it."""
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
