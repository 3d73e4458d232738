"""SAEs that only conditions read: found, and held to what a gate can be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hubsplice.compiling.base_sae import base_sae
from hubsplice.edits.base import Edit
from hubsplice.errors import HubspliceError, RecipeError, UnsupportedError, within
from hubsplice.families.architecture import Architecture
from hubsplice.features.references import SaeSource
from hubsplice.features.sae_config import FoundSae
from hubsplice.intervention.place import Place


@dataclass(frozen=True, eq=False)
class GateSaes:
    """The SAEs that the conditions of a splice name beside the splice's own.

    Attributes:
        edits: the splice's, which name them by what was found, at its commit.
        found: by what the edits call them.
        problems: what is wrong with the others.
    """

    edits: tuple[Edit, ...]
    found: Mapping[SaeSource, FoundSae]
    problems: tuple[HubspliceError, ...]


def gate_saes(
    edits: Sequence[Edit],
    own: FoundSae | None,
    place: Place,
    architecture: Architecture,
    field: str,
) -> GateSaes:
    """Find the SAEs of conditions, each once; edits leave the splice's own unnamed.

    Args:
        edits: the splice's.
        own: the splice's SAE, if it names one.
        place: where they edit.
        architecture: what the base is.
        field: how the recipe calls the splice, for messages (`splices[0]`).
    """
    known: dict[SaeSource, FoundSae | None] = {}
    found: dict[SaeSource, FoundSae] = {}
    problems: list[HubspliceError] = []
    changed: list[Edit] = []
    for number, edit in enumerate(edits):
        pinned: dict[SaeSource, SaeSource | None] = {}
        for where, source in _named(edit):
            try:
                if source not in known:
                    with within("sae"):
                        known[source] = _gate_sae(source, own, place, architecture)
            except HubspliceError as error:
                problems.append(error.inside(f"{field}.edits[{number}].{where}"))
                continue
            sae = known[source]
            pinned[source] = name = None if sae is None else _pinned(sae)
            if sae is not None and name is not None:
                found[name] = sae
        when = edit.condition
        if when is not None and pinned:
            edit = edit.model_copy(update={"when": when.with_saes(pinned)})
        changed.append(edit)
    return GateSaes(tuple(changed), found, tuple(problems))


def _named(edit: Edit) -> Iterator[tuple[str, SaeSource]]:
    when = edit.condition
    for where, part in () if when is None else when.fields():
        if part.sae is not None:
            yield where, part.sae


def _gate_sae(
    source: SaeSource, own: FoundSae | None, place: Place, architecture: Architecture
) -> FoundSae | None:
    """What a condition names; None for the splice's own."""
    sae = base_sae(source, architecture)
    if own is not None and _pinned(sae) == _pinned(own):
        return None
    config = sae.config
    if config.competes:
        raise UnsupportedError(
            f"{config.origin}: its features compete ({config.architecture}), so that where one is "
            "active depends on all others; as a gate give an SAE whose features have thresholds "
            "of their own, or a probe"
        )
    trained = None if config.hook is None else config.hook.place
    if trained is not None and trained != place:
        raise RecipeError(
            f"{config.origin} reads the stream after layer {trained}, and the edit is after layer "
            f"{place}, where that stream is gone: a condition reads what the edit reads; expected "
            "an SAE of that place, or a probe"
        )
    return sae


def _pinned(sae: FoundSae) -> SaeSource:
    if sae.commit is None:
        return sae.source
    return sae.source.model_copy(update={"revision": sae.commit})
