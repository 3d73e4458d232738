"""A folder that appears whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import signal
import threading
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hubsplice.errors import OutputError
from hubsplice.files.replacing import require_inside
from hubsplice.files.space import full_disk

_LOCK = "lock"
_CONTENT = "content"

# A lock that somebody else put there may be a link, and would be made where it leads.
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def staged_directory(destination: Path) -> Generator[Path, None, None]:
    """Yield an empty folder that becomes `destination` when the block ends without an error.

    The folder lies beside the destination, in `.{name}.partial-…`. At the end every file is
    synced to the disk and the folder renamed in one step, so that a kill at any moment leaves
    either the whole result or none. After an error, Ctrl-C or SIGTERM nothing remains; what a
    killed run left behind, the next one for the same destination removes.

    Raises:
        OutputError: the destination exists and is not an empty folder, it cannot be written, or
            the disk is full.
    """
    target = Path(os.path.realpath(destination))
    made = _make_parents(target)
    try:
        _remove_leftovers(target)
        refuse_occupied(target)
        with _termination_as_exception(), _locked_staging(target) as staging:
            content = staging / _CONTENT
            with _full_disk_explained(target.parent):
                content.mkdir()
                yield content
                _sync_tree(content)
            _publish(content, target)
            _sync(target.parent)
    except BaseException:
        _remove_if_empty(made)
        raise


@contextmanager
def scratch_directory(folder: Path, name: str) -> Generator[Path, None, None]:
    """Yield an empty folder inside `folder`, on the same filesystem, which is gone at the end.

    It is hidden, and what a killed run left behind of that name, the next one removes.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    target = folder.resolve() / name
    _remove_leftovers(target)
    with _termination_as_exception(), _locked_staging(target) as staging:
        content = staging / _CONTENT
        with _full_disk_explained(folder):
            content.mkdir()
            yield content


@contextmanager
def replaced_files(
    folder: Path, name: str, *, last: str, instead_of: Collection[str] = ()
) -> Generator[Path, None, None]:
    """Yield an empty folder whose files then take their places in `folder`.

    Each takes its place whole, so that none is ever half written.

    Args:
        folder: where they go.
        name: of the hidden folder that is yielded.
        last: the file, by its relative name, that takes its place when all others have.
        instead_of: files of `folder` that are removed where no new one takes their place.

    Raises:
        OutputError: the folder cannot be written, a link leads out of it, or the disk is full.
    """
    try:
        with scratch_directory(folder, name) as new:
            yield new
            made = [p.relative_to(new).as_posix() for p in new.rglob("*") if p.is_file()]
            for one in {*made, *instead_of}:
                require_inside(folder, folder / one)
            for one in sorted(made, key=lambda one: (one == last, one)):
                (folder / one).parent.mkdir(exist_ok=True)
                (new / one).replace(folder / one)
            for one in {*instead_of}.difference(made):
                (folder / one).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


@contextmanager
def _full_disk_explained(folder: Path) -> Iterator[None]:
    # Asked before anything is removed, so that the free space reported is that of the failure.
    try:
        yield
    except OSError as error:
        explained = full_disk(error, folder)
        if explained is None:
            raise
        raise explained from None


def refuse_occupied(target: Path) -> None:
    """Raise `OutputError` unless `target` is missing or an empty folder that can be renamed."""
    try:
        if not target.exists():
            return
    except OSError as error:
        raise _unwritable(target, error) from None
    if not target.is_dir():
        raise OutputError(f"{target}: expected a new folder or an empty one, found a file")
    if os.path.ismount(target):
        raise _mount_point(target)
    found = sorted(entry.name for entry in target.iterdir())
    if found:
        raise OutputError(
            f"{target}: expected a new folder or an empty one, found {len(found)} "
            f"{'entries' if len(found) > 1 else 'entry'} in it, such as {found[0]!r}; choose "
            "another --output"
        )


def refuse_inside(model: Path, destination: Path) -> None:
    """Raise `OutputError` if a folder to write lies in a model's folder, where it has no place."""
    target, folder = (Path(os.path.realpath(path)) for path in (destination, model))
    if folder in target.parents:
        raise OutputError(
            f"{destination}: it lies in {model}, which holds a model; name a folder outside it"
        )


def _publish(content: Path, target: Path) -> None:
    try:
        content.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise OutputError(f"{target}: something was written there in the meantime") from None
        if error.errno in (errno.EBUSY, errno.EXDEV):
            raise _mount_point(target) from None
        raise _unwritable(target.parent, error) from None


def _mount_point(target: Path) -> OutputError:
    return OutputError(
        f"{target}: this is a mount point, which no folder can be renamed onto; name a folder "
        "inside it"
    )


@contextmanager
def _locked_staging(target: Path) -> Iterator[Path]:
    while True:
        staging = target.parent / f".{target.name}.partial-{secrets.token_hex(4)}"
        try:
            staging.mkdir()
        except OSError as error:
            raise _unwritable(target.parent, error) from None
        descriptor = _lock_new(staging)
        if descriptor is not None:
            break
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(descriptor)


def _lock_new(staging: Path) -> int | None:
    """Lock a staging folder; None when another run has taken it for a leftover and removed it."""
    path = staging / _LOCK
    try:
        descriptor = os.open(path, _LOCK_FLAGS, 0o644)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        # Some network filesystems have no locks. Cleaning up fails there likewise, so that no
        # run's folder is taken for a leftover.
        return descriptor
    try:
        same = os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        same = False
    if not same:
        os.close(descriptor)
        return None
    return descriptor


def _remove_leftovers(target: Path) -> None:
    """Remove the staging folders of runs that are dead: those whose lock is free."""
    ours = re.compile(re.escape(f".{target.name}.partial-") + "[0-9a-f]{8}")
    try:
        found = sorted(entry for entry in target.parent.iterdir() if ours.fullmatch(entry.name))
    except OSError as error:
        raise _unwritable(target.parent, error) from None
    for staging in found:
        if staging.is_dir() and not staging.is_symlink():
            _remove_if_dead(staging)


def _remove_if_dead(staging: Path) -> None:
    try:
        descriptor = os.open(staging / _LOCK, _LOCK_FLAGS, 0o644)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(descriptor)


def _make_parents(target: Path) -> list[Path]:
    """Create the folders above `target`; returns those that were not there, deepest first."""
    try:
        missing = [folder for folder in target.parents if not folder.exists()]
    except OSError as error:
        raise _unwritable(target, error) from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_if_empty(missing)
        raise _unwritable(target.parent, error) from None
    return missing


def _remove_if_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return full_disk(error, folder) or OutputError(f"{folder}: cannot be written: {error.strerror}")


def _sync_tree(folder: Path) -> None:
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(Path(path, name))
        _sync(Path(path))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _termination_as_exception() -> Iterator[None]:
    """Turn SIGTERM into SystemExit for the duration, where nobody else handles it."""
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not ours:
        yield
        return
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit_on_signal(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
