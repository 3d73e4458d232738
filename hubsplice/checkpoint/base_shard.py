"""Writing one of the base's shards under new tensor names."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from hubsplice.checkpoint.layout import ShardLayout
from hubsplice.errors import CheckpointError
from hubsplice.files.copying import clone_file, copy_range
from hubsplice.files.digest import FileDigest, known_digest
from hubsplice.files.plain import open_plain
from hubsplice.files.safetensors_header import Header, read_header
from hubsplice.files.stream import Consumer, stream
from hubsplice.files.uncached import UncachedFile


def write_base_shard(
    shard: ShardLayout, path: Path, *, hard_link: bool, on_done: Callable[[int], None]
) -> tuple[FileDigest, FileDigest]:
    """Write a shard as planned, reading the base once.

    Every byte of data is hashed for the base, hashed for the result and written from one place in
    memory, so that neither digest can be of anything but what was written. Where the base's digest
    is known already, and nobody has written to the file since, it is taken.

    Args:
        shard: the plan.
        path: the new file.
        hard_link: link the file, where all names stay and the filesystem can.
        on_done: called with the size of each part of the result that is done.

    Returns:
        The digests of the base's file and of the new one.

    Raises:
        CheckpointError: the base changed since it was opened, or it lies in a model cache that
            names it by another digest.
        OSError: a full disk, or a failing one.
    """
    source = shard.source
    with ExitStack() as stack:
        original = stack.enter_context(open_plain(source.path))
        before = os.fstat(original.fileno())
        base_header = original.read(source.data_start)
        if not _is_as_planned(source):
            raise _changed(source.path)
        header = base_header if shard.header is None else shard.header
        whole, base = hashlib.sha256(), hashlib.sha256(base_header)
        known = known_digest(before)
        consumers: list[Consumer] = [lambda block, _: whole.update(block)]
        if shard.header is not None and known is None:
            consumers.append(lambda block, at: base.update(block[max(len(header) - at, 0) :]))
        read_from, offset = original.fileno(), len(base_header)
        try:
            if not (hard_link and shard.header is None and _link(source.path, path)):
                copy = stack.enter_context(path.open("x+b"))
                if _share_blocks(shard, original.fileno(), copy):
                    read_from, offset = copy.fileno(), len(header)
                else:
                    consumers.append(UncachedFile(copy.fileno()).write)
            stream(
                read_from,
                prefix=header,
                offset=offset,
                count=source.data_size,
                consumers=consumers,
                on_read=on_done,
            )
        except EOFError:
            raise _changed(source.path) from None
        after = os.fstat(original.fileno())
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _changed(source.path)
    written = FileDigest(whole.hexdigest(), shard.size)
    if shard.header is None:
        read = written
    else:
        read = known or FileDigest(base.hexdigest(), source.file_size)
    _refuse_corrupt_blob(source.path, read)
    return read, written


def _refuse_corrupt_blob(path: Path, found: FileDigest) -> None:
    """Compare with the Hub's own digest, which its client's cache has for a name of large files."""
    blob = path.resolve()
    if blob.parent.name != "blobs" or not re.fullmatch("[0-9a-f]{64}", blob.name):
        return
    if blob.name != found.sha256:
        raise CheckpointError(
            f"{path}: corrupt: the Hub's file has the sha256 {blob.name}, and the copy in the "
            f"cache {found.sha256}; delete {blob} and download it again"
        )


def _link(source: Path, path: Path) -> bool:
    """Hard-link, following symbolic links as a model cache has them; False across filesystems."""
    try:
        os.link(os.path.realpath(source), path)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _share_blocks(shard: ShardLayout, source: int, copy: BinaryIO) -> bool:
    """Write the whole shard by sharing the base's blocks; False where that is not possible."""
    if not (shard.can_share_blocks and clone_file(source, copy.fileno())):
        return False
    if shard.header is not None:
        copy.truncate(0)
        copy.write(shard.header)
        copy.flush()
        copy_range(
            source,
            copy.fileno(),
            offset=shard.source.data_start,
            destination_offset=len(shard.header),
            count=shard.source.data_size,
        )
    return True


def _is_as_planned(source: Header) -> bool:
    try:
        return read_header(source.path) == source
    except CheckpointError:
        return False


def _changed(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: the file changed while it was being copied")
