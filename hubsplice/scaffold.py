"""A repository that releases a model: the recipe, the workflow, what to set up."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile

from hubsplice.errors import OutputError, RecipeError
from hubsplice.templates import load_template

RECIPE = "recipe.yaml"
WORKFLOW = ".github/workflows/release.yml"
_TEMPLATES = {
    RECIPE: "recipe.yaml.j2",
    WORKFLOW: "release/release.yml.j2",
    "README.md": "release/README.md.j2",
    ".gitignore": "release/gitignore.j2",
}

_NAME = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_REPO_ID = re.compile(f"{_NAME}/{_NAME}", re.ASCII)
# A folder of a repository at a commit, branch or tag, as `uses:` takes it.
_ACTION = re.compile(rf"{_NAME}/{_NAME}(?:/[\w.-]+)*@[\w./-]+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def recipe_starter(name: str, *, repo_id: str | None = None) -> str:
    """A commented recipe.

    Args:
        name: of its file.
        repo_id: the repository that it is published to; None leaves that out.

    Raises:
        RecipeError: `repo_id` is not `owner/name`.
    """
    if repo_id is not None:
        _require_repo_id(repo_id)
    return load_template(_TEMPLATES[RECIPE]).render(name=name, repo_id=repo_id)


def release_repository(repo_id: str, *, action: str) -> dict[str, str]:
    """The files of a repository that releases a model.

    Args:
        repo_id: the repository on the Hub, `owner/name`.
        action: hubsplice's action as `uses:` names it, `owner/repo/path@ref`.

    Returns:
        Texts by relative path.

    Raises:
        RecipeError: an argument is malformed.
    """
    _require_repo_id(repo_id)
    if not _ACTION.fullmatch(action):
        raise RecipeError(f"--action: {action!r} is not `owner/repo/path@ref`")
    pinned = _COMMIT.fullmatch(action.rpartition("@")[2]) is not None
    values = {
        "action": action,
        "action_comment": "" if pinned else " # pin it to a commit: a tag can be moved",
        "name": RECIPE,
        "repo_id": repo_id,
    }
    return {path: load_template(name).render(values) for path, name in _TEMPLATES.items()}


def write_files(files: Mapping[str, str], folder: Path, *, force: bool) -> None:
    """Write all of the files, or none where one can't be written or is there already.

    Args:
        files: texts by relative path.
        folder: made where it is missing.
        force: overwrite files that exist.

    Raises:
        OutputError: a file exists, or can't be written.
    """
    paths = {folder / PurePosixPath(name): text for name, text in files.items()}
    _refuse_existing(paths, force=force)
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


def _refuse_existing(paths: Iterable[Path], *, force: bool) -> None:
    existing = [path for path in paths if os.path.lexists(path)]
    for path in existing:
        if path.is_dir():
            raise OutputError(f"{path}: a folder is in the way")
    if existing and not force:
        verb, them = ("exists", "it") if len(existing) == 1 else ("exist", "them")
        names = ", ".join(map(str, existing))
        raise OutputError(f"{names}: {verb} already; --force overwrites {them}")


def _require_repo_id(repo_id: str) -> None:
    if not _REPO_ID.fullmatch(repo_id):
        raise RecipeError(f"--repo-id: {repo_id!r} is not `owner/name`")


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
