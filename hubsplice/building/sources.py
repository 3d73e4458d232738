"""`reproduce/sources.json`: the local files that a recipe named, known by their content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from hubsplice.checkpoint.checksums import checksum_list
from hubsplice.checkpoint.manifest import Record
from hubsplice.checkpoint.record_file import read_record, write_record
from hubsplice.errors import CheckpointError
from hubsplice.features.sae_files import files_of
from hubsplice.files.digest import Sha256, digest_bytes, digest_file
from hubsplice.recipe.local_paths import TEXTS, local_paths
from hubsplice.recipe.models import Recipe
from hubsplice.text.local import text_files

SOURCES = "reproduce/sources.json"
"""Where a spliced checkpoint carries it."""


def _bare(name: str) -> str:
    # A record may come from anyone: a name is no way out of a folder.
    if Path(name).name != name or "\0" in name or name in ("", "..", "."):
        raise ValueError(f"{name!r} is not the bare name of a file or folder")
    return name


BareName = Annotated[str, AfterValidator(_bare)]


class LocalSource(Record):
    """An SAE, a vector, a probe or a text that lay on the disk of whoever built the model."""

    field: str = Field(description="Where the recipe names it, such as `splices[0].sae.path`.")
    name: BareName = Field(description="The bare name of the file or folder.")
    sha256: Sha256 = Field(
        description="Of the file. Of a folder: of the list that `sha256sum` prints for its files, "
        "sorted by name; of an SAE, its configuration and its weights."
    )


class Sources(Record):
    """All of them, in the order of the recipe."""

    local: tuple[LocalSource, ...] = ()


def describe_sources(recipe: Recipe) -> Sources:
    """The local sources of a recipe with absolute paths.

    Raises:
        CheckpointError: one can't be read.
    """
    return Sources(
        local=tuple(
            LocalSource(field=field, name=path.name, sha256=source_digest(field, path))
            for field, path in local_paths(recipe).items()
        )
    )


def source_digest(field: str, path: Path) -> str:
    """The SHA-256 by which a source is known; see `LocalSource.sha256`.

    Args:
        field: where the recipe names it, which says what counts of a folder.
        path: the file or folder.

    Raises:
        CheckpointError: it can't be read, or isn't there.
    """
    try:
        if not path.is_dir():
            return digest_file(path).sha256
        files = {name: digest_file(path / name) for name in _names(field, path)}
    except OSError as error:
        raise CheckpointError(f"{field}: {path} can't be read: {error.strerror}") from None
    return digest_bytes(checksum_list(files).encode()).sha256


def write_sources(sources: Sources, folder: Path) -> None:
    """Write the record to a checkpoint that has none."""
    write_record(sources, folder / SOURCES)


def read_sources(folder: Path) -> Sources:
    """Read the record of a checkpoint.

    Raises:
        CheckpointError: it is missing or malformed.
    """
    return read_record(folder / SOURCES, Sources)


def _names(field: str, folder: Path) -> Iterator[str]:
    if field.split(".")[0] in TEXTS:
        for path in text_files(folder, field):
            yield path.relative_to(folder).as_posix()
    else:
        yield from files_of(folder)
