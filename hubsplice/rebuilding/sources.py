"""The local files that a rebuild needs: found by content, whatever they are called here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hubsplice.building.sources import LocalSource, Sources, source_digest
from hubsplice.errors import HubspliceError, RecipeError
from hubsplice.files.plain import exists, is_folder, is_plain


def found_sources(wanted: Sources, given: Sequence[Path]) -> dict[str, Path]:
    """Where every local source of a recipe is, by the field that names it.

    Args:
        wanted: what the model was built from.
        given: files and folders of the user: each a source itself, or a folder that holds some
            under the names that they had.

    Raises:
        RecipeError: some aren't among them; each is named with its SHA-256. Or something given is
            not there.
    """
    for path in given:
        if not is_folder(path) and not is_plain(path):
            neither = "it is neither a file nor a folder"
            what = neither if exists(path) else "there is no such file or folder"
            raise RecipeError(f"--source: {path}: {what}")
    found: dict[str, Path] = {}
    missing: list[str] = []
    for source in wanted.local:
        others = []
        for path in _candidates(source, given):
            sha256 = _digest(source, path)
            if sha256 == source.sha256:
                found[source.field] = path
                break
            others.append(f"; {path} is another one, with sha256 {sha256}" if sha256 else "")
        else:
            named = "".join(others[:3])
            missing.append(f"{source.field}: {source.name!r} with sha256 {source.sha256}{named}")
    if missing:
        listed = "\n".join(f"  {line}" for line in missing)
        raise RecipeError(
            "the model was built from local files that are not here; give each, or a folder that "
            f"holds them, with --source:\n{listed}"
        )
    return found


def under_their_names(wanted: Sources, found: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Links to the sources under the names that they had, which labels of edits quote.

    Args:
        wanted: what the model was built from.
        found: where each is, as `found_sources` says.
        folder: where to make the links; empty.
    """
    links = {}
    for number, source in enumerate(wanted.local):
        link = folder / str(number) / source.name
        link.parent.mkdir()
        link.symlink_to(found[source.field].absolute())
        links[source.field] = link
    return links


def _candidates(source: LocalSource, given: Sequence[Path]) -> Iterator[Path]:
    for path in given:
        if exists(path / source.name):
            yield path / source.name
        yield path


def _digest(source: LocalSource, path: Path) -> str | None:
    """None for what can't be such a source."""
    try:
        return source_digest(source.field, path)
    except HubspliceError:
        return None
