"""SAEs as a command line names them: a folder, `release/id`, or a repository of the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hubsplice.errors import RecipeError
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import LoadedSae, load_sae
from hubsplice.features.sae_config import FoundSae, find_sae
from hubsplice.features.sae_match import require_width, site_place
from hubsplice.features.sae_registry import is_release
from hubsplice.features.sae_support import require_supported
from hubsplice.files.plain import is_folder
from hubsplice.intervention.place import Place


@dataclass(frozen=True, eq=False)
class PlacedSae:
    """An SAE in memory, and where it reads the stream.

    Attributes:
        source: as a recipe names it.
        place: where it reads.
        sae: the SAE.
    """

    source: SaeSource
    place: Place
    sae: LoadedSae


def sae_source(name: str) -> SaeSource:
    """What a recipe calls the SAE of this name.

    Args:
        name: a folder; a release of SAELens's registry, a slash and an id; or a repository of the
            Hub, with a slash and a folder in it where the SAE is not at its root.

    Raises:
        RecipeError: it is none of the three.
    """
    path = Path(name).expanduser()
    if is_folder(path) or name.startswith(("/", "./", "../", "~")):
        return SaeSource(path=path.absolute())
    first, slash, rest = name.partition("/")
    if not (first and slash and rest):
        raise RecipeError(
            f"--sae: {name!r} is no folder; expected a folder, RELEASE/ID of SAELens's registry, "
            "or OWNER/REPOSITORY of the Hub, with /FOLDER behind it where the SAE lies in one"
        )
    if is_release(first):
        return SaeSource(release=first, id=rest)
    repository, _, subfolder = rest.partition("/")
    return SaeSource(repo_id=f"{first}/{repository}", subfolder=subfolder or None)


def find_source(source: SaeSource) -> FoundSae:
    """The SAE's configuration; raises as `load_sae` does, before any weight is read."""
    found = find_sae(source)
    require_supported(found.config)
    return found


def placed(found: FoundSae, place: Place | None, hidden_size: int) -> PlacedSae:
    """Load an SAE for a stream of this width.

    Args:
        found: the SAE.
        place: where it reads; None for where it was trained.
        hidden_size: of the base.

    Raises:
        RecipeError: it doesn't say where it was trained, or is of another width.
        CheckpointError: its files are missing or damaged.
    """
    require_width(found.config, hidden_size)
    where = site_place(found.config, place)
    return PlacedSae(found.source, where, load_sae(found))
