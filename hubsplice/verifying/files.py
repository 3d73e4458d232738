"""The files of a spliced checkpoint: the manifest's list, the base's, and nothing beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from hubsplice.building.reproduction import REPRODUCTION
from hubsplice.card.words import is_words
from hubsplice.checkpoint.checksums import CHECKSUMS
from hubsplice.checkpoint.companions import (
    CARD,
    CARD_DATA,
    CONFIG,
    MANIFEST,
    WEIGHTS_INDEX,
    companion_files,
    is_companion,
)
from hubsplice.checkpoint.engine_runs import ENGINE_RUNS
from hubsplice.errors import CheckpointError
from hubsplice.evaluating.results import is_evaluation
from hubsplice.fidelity.report import REPORT
from hubsplice.files.digest import FileDigest, digest_file
from hubsplice.pictures.drawing import PICTURES

_UNLISTED = frozenset({MANIFEST, CARD, CARD_DATA, CHECKSUMS})
_WRITTEN = frozenset({CONFIG, WEIGHTS_INDEX, REPORT, ENGINE_RUNS, *PICTURES, *REPRODUCTION})

OnRead = Callable[[int], None]


def visible_files(folder: Path) -> Iterator[str]:
    """Files by name relative to `folder`, without hidden ones, which loaders do not read."""
    for path, subfolders, files in os.walk(folder):
        for name in subfolders:
            # It is not entered, and could lead anywhere.
            if not name.startswith(".") and Path(path, name).is_symlink():
                yield Path(path, name).relative_to(folder).as_posix()
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield Path(path, name).relative_to(folder).as_posix()


def is_hidden(name: str) -> bool:
    """Whether a file of this relative name is hidden, or lies in a hidden folder."""
    return any(part.startswith(".") for part in name.split("/"))


def altered_files(folder: Path, files: Mapping[str, FileDigest], on_read: OnRead) -> list[str]:
    """The files of `folder` that are missing or not the ones that `files` describes.

    Raises:
        CheckpointError: a file is there and cannot be read.
    """
    problems = []
    for name, expected in sorted(files.items()):
        try:
            found = digest_file(folder / name, on_read=on_read)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            problems.append(f"{name}: missing")
            continue
        except OSError as error:
            raise CheckpointError(f"{folder / name}: cannot be read: {error.strerror}") from None
        if found != expected:
            problems.append(f"{name}: found sha256 {found.sha256}, expected {expected.sha256}")
    return problems


def unexpected_files(present: Collection[str], listed: Collection[str]) -> list[str]:
    """What should not be there, and what the manifest lists and no splice has.

    Args:
        present: the names of the checkpoint's visible files.
        listed: the names in the manifest.
    """
    problems = [
        f"{name}: the manifest does not list it"
        for name in sorted(present)
        if name not in listed and name not in _UNLISTED
    ]
    problems += [
        f"{name}: the manifest lists it, and a spliced checkpoint holds no such file"
        for name in sorted(listed)
        if name not in _WRITTEN
        and not any(known(name) for known in (_is_weights, is_companion, is_words, is_evaluation))
    ]
    return problems


def companion_problems(
    base: Path, files: Mapping[str, FileDigest], base_files: Mapping[str, FileDigest]
) -> list[str]:
    """The companion files in which a checkpoint differs from its base.

    Args:
        base: the base's folder.
        files: the digests in the manifest, which are checked elsewhere.
        base_files: the same of the base's files.
    """
    names = set(companion_files(base))
    problems = []
    for name in sorted(names | {name for name in files if is_companion(name)}):
        if name not in names:
            problems.append(f"{name}: the base has no such file")
        elif name not in files:
            problems.append(f"{name}: the base's is missing")
        elif files[name] != base_files.get(name):
            problems.append(f"{name}: not the base's")
    return problems


def _is_weights(name: str) -> bool:
    return "/" not in name and name.endswith(".safetensors")
