"""SAEs as a command line names them: by a folder, on Neuronpedia, in a registry, or on the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hubsplice.errors import HubspliceError, RecipeError
from hubsplice.features.neuronpedia import page, parse_name
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import LoadedSae, load_sae
from hubsplice.features.sae_config import FoundSae, find_sae
from hubsplice.features.sae_match import require_width, site_place
from hubsplice.features.sae_registry import is_neuronpedia_model, is_release
from hubsplice.features.sae_support import require_supported
from hubsplice.files.plain import is_folder
from hubsplice.intervention.place import Place

_FIELD = re.compile(r"^sae(\.\w+)?(?=[: ])")


@dataclass(frozen=True, eq=False)
class PlacedSae:
    """An SAE in memory, and where it reads the stream.

    Attributes:
        source: as a recipe names it.
        place: where it reads.
        sae: the SAE.
        neuronpedia: what Neuronpedia calls it, if the registry says.
    """

    source: SaeSource
    place: Place
    sae: LoadedSae
    neuronpedia: str | None = None

    def link(self, feature: int) -> str | None:
        """The address of a feature's page at Neuronpedia; None where it has none."""
        return None if self.neuronpedia is None else page(self.neuronpedia, feature)


def sae_source(name: str) -> SaeSource:
    """What a recipe calls the SAE of this name.

    Args:
        name: a folder; Neuronpedia's name, or the address of its page; a release of SAELens's
            registry, a slash and an id; or a repository of the Hub, with a slash and a folder in it
            where the SAE is not at its root.

    Raises:
        RecipeError: it is none of these.
    """
    path = Path(name).expanduser()
    if is_folder(path) or name.startswith(("/", "./", "../", "~")):
        return SaeSource(path=path.absolute())
    if "://" in name:
        return _on_neuronpedia(name)
    first, slash, rest = name.partition("/")
    if not (first and slash and rest):
        raise RecipeError(
            f"--sae: {name!r} is no folder; expected a folder, Neuronpedia's MODEL/SAE, RELEASE/ID "
            "of SAELens's registry, or OWNER/REPOSITORY of the Hub, with /FOLDER behind it where "
            "the SAE lies in one"
        )
    if is_release(first):
        return SaeSource(release=first, id=rest)
    if is_neuronpedia_model(first):
        return _on_neuronpedia(name)
    repository, _, subfolder = rest.partition("/")
    return SaeSource(repo_id=f"{first}/{repository}", subfolder=subfolder or None)


def _on_neuronpedia(name: str) -> SaeSource:
    try:
        return SaeSource(neuronpedia=parse_name(name).sae)
    except ValueError as error:
        raise RecipeError(f"--sae: {error}") from None


def find_source(source: SaeSource) -> FoundSae:
    """The SAE's configuration; raises as `load_sae` does, before any weight is read."""
    try:
        found = find_sae(source)
    except HubspliceError as error:
        # Fields of a recipe, and no recipe was given.
        raise type(error)(_FIELD.sub("--sae", str(error))) from None
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
    return PlacedSae(found.source, where, load_sae(found), found.neuronpedia)
