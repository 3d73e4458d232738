"""Several small text files, written all or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile

from hubsplice.errors import OutputError
from hubsplice.files.replacing import require_inside


def write_files(files: Mapping[str, str], folder: Path, *, force: bool) -> None:
    """Write all of the files, or none where one can't be written or is there already.

    Args:
        files: texts by relative path.
        folder: made where it is missing.
        force: overwrite files that exist.

    Raises:
        OutputError: a file exists or can't be written, or a link leads out of the folder.
    """
    paths = {folder / PurePosixPath(name): text for name, text in files.items()}
    for path in paths:
        require_inside(folder, path)
    refuse_existing(paths, force=force)
    written: dict[Path, Path] = {}
    made: list[Path] = []
    try:
        for path, text in paths.items():
            made += _make_folder(path.parent)
            written[path] = _write_beside(path, text)
        for path, new in written.items():
            new.replace(path)
    except OSError as error:
        _remove(written.values(), made)
        where = error.filename or folder
        raise OutputError(f"{where}: cannot be written: {error.strerror}") from None


def require_folder_of(path: Path) -> None:
    """Raise `OutputError` unless the folder is there that a file is to be written into."""
    if not path.parent.is_dir():
        raise OutputError(f"{path}: cannot be written: {path.parent} is not a folder")


def refuse_existing(paths: Iterable[Path], *, force: bool) -> None:
    """Raise `OutputError` where a folder is in the way, or, unless `force`, a file."""
    existing = [path for path in paths if os.path.lexists(path)]
    for path in existing:
        if path.is_dir():
            raise OutputError(f"{path}: a folder is in the way")
    if existing and not force:
        verb, them = ("exists", "it") if len(existing) == 1 else ("exist", "them")
        names = ", ".join(map(str, existing))
        raise OutputError(f"{names}: {verb} already; --force overwrites {them}")


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and what is above it; those that were missing, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _write_beside(path: Path, text: str) -> Path:
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        file.write(text)
    new = Path(file.name)
    # A temporary file is its owner's alone, and these are meant to be shared.
    new.chmod(0o644)
    return new


def _remove(files: Iterable[Path], folders: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        folder.rmdir()
