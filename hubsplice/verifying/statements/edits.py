"""What a manifest says of each edit, worked out again from the recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from hubsplice.checkpoint.manifest import EditedBias, InsertedLayer, TermRecord
from hubsplice.edits.base import Edit
from hubsplice.edits.feature_edit import FeatureEdit
from hubsplice.edits.gated_steer import GatedSteer
from hubsplice.edits.recording import Recording
from hubsplice.edits.steer import Steer
from hubsplice.errors import HubspliceError
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site, Term
from hubsplice.recipe.models import Recipe, Splice
from hubsplice.recipe.problems import field_path
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.edit_terms import terms_of_first_edit
from hubsplice.verifying.statements.ledger import Comparison, Path, as_json
from hubsplice.verifying.statements.on_paper import OnPaper

_FROM_RECIPE = "from the recipe"
_FROM_EDIT = "from the intervention"

_WRITES_ALL = (FeatureEdit, Steer, GatedSteer)
"""Edits whose term writes along the direction that their strength is measured along, as it is."""

_AMOUNT_FIELDS = ("stated", "stated_max", "value", "share", "of_max")


def splices_in_order(claim: Claim, recipe: Recipe) -> tuple[tuple[Splice, ...], list[str]]:
    """The recipe's splices in the order of the manifest's edited places, and what is wrong.

    A splice that leaves its place to the SAE is known by its edits. None are given where anything
    is wrong.
    """
    left = list(recipe.splices)
    found: list[Splice] = []
    for edited in claim.manifest.edits:
        asked = _distinct(term.edit for term in edited.terms)
        by_place = [splice for splice in left if splice.place == edited.place]
        by_edits = [s for s in left if s.place is None and _distinct(map(_shown, s.edits)) == asked]
        candidates = [*by_place, *by_edits]
        if not candidates:
            return (), [f"layer {edited.place}: the recipe has no splice there with these edits"]
        found.append(candidates[0])
        left.remove(candidates[0])
    if left:
        return (), [f"{len(left)} of the recipe's splices are not in the manifest"]
    return tuple(found), []


def edit_records(claim: Claim, splices: Sequence[Splice], intervention: Intervention) -> Comparison:
    """Compare the record of every term with what its edit in the recipe makes of it.

    Args:
        claim: the manifest.
        splices: the recipe's, in the order of the manifest's edited places.
        intervention: the exact edit; it has the manifest's places and terms.
    """
    found = Comparison(claim.manifest)
    editing = claim.manifest.editing_layers
    paths = {
        entry.place: (kind, index)
        for kind, entries in (("layers", claim.manifest.layers), ("biases", claim.manifest.biases))
        for index, entry in enumerate(entries)
        if isinstance(entry, EditedBias) or entry in editing
    }
    for edited, splice, site in zip(claim.manifest.edits, splices, intervention.sites, strict=True):
        _Splice(found, (*paths[edited.place], "terms"), edited, splice, site).compare()
    for index, layer in enumerate(claim.manifest.layers):
        if layer not in editing:
            source = "in a layer that only makes room for another one"
            found.shows("layers", index, "terms", expected=[], source=source)
    return found


class _Splice:
    """The comparison of one splice; its terms are at `path`."""

    def __init__(
        self,
        found: Comparison,
        path: Path,
        edited: InsertedLayer | EditedBias,
        splice: Splice,
        site: Site,
    ) -> None:
        self._found, self._path = found, path
        self._edited, self._splice, self._site = edited, splice, site

    def compare(self) -> None:
        terms = self._edited.terms
        asked = [_shown(edit) for edit in self._splice.edits]
        if _distinct(asked) != _distinct(term.edit for term in terms):
            self._found.problems.append(
                f"{field_path(self._path)}: the recipe has other edits there, or another order"
            )
            return
        if not asked:
            self._found.shows(*self._path, expected=[], source=_FROM_RECIPE)
        start = 0
        for edit, shown in zip(self._splice.edits, asked, strict=True):
            left = terms[start:]
            count = terms_of_first_edit(left) if left and left[0].edit == shown else 0
            own = list(zip(terms, self._site.terms, strict=True))[start : start + count]
            self._compare_edit(start, edit, shown, own)
            start += count

    def _compare_edit(
        self,
        start: int,
        edit: Edit,
        shown: dict[str, Any],
        own: Sequence[tuple[TermRecord, Term]],
    ) -> None:
        first = field_path((*self._path, start))
        norms = self._found.at("calibration", "median_norm") or {}
        on_paper = OnPaper(
            len(own),
            len(own[0][1].direction) if own else 1,
            float(norms.get(str(self._edited.place), 0.0)),
            own[0][0].amounts if own else (),
        )
        recording = Recording(on_paper)
        try:
            expected = edit.terms(recording)
        except (HubspliceError, ValueError) as error:
            self._found.problems.append(f"{first}: it can't be lowered again: {error}")
            return
        if len(expected) != len(own):
            self._found.problems.append(f"{first}: found {len(own)} terms for {len(expected)}")
            return
        for offset, (term, (_, compiled)) in enumerate(zip(expected, own, strict=True)):
            path = (*self._path, start + offset)
            self._compare_term(path, edit, shown, term.label)
            self._compare_held((*path, "held"), edit, on_paper)
            self._compare_amounts((*path, "amounts"), edit, compiled, recording, on_paper)

    def _compare_term(self, path: Path, edit: Edit, shown: dict[str, Any], label: str) -> None:
        found, features = self._found, edit.feature_indices()
        for name, value in (
            ("label", label),
            ("kind", edit.kind),
            ("formula", edit.formula),
            ("feature", features[0] if features else None),
        ):
            found.shows(*path, name, expected=value, source=_FROM_RECIPE)
        found.agrees(*path, "edit", expected=shown, source=_FROM_RECIPE)
        # A label is what somebody says of a feature; that the recipe says it too shows nothing.
        found.shown |= set(_but_labels((*path, "edit"), shown))
        if not edit.all_indices():
            for name, nothing in (("source", {}), ("source_sha256", None)):
                found.shows(*path, name, expected=nothing, source="for an edit of no feature")
        elif self._splice.sae is not None:
            source = self._splice.sae.model_dump(mode="json", exclude_none=True)
            found.agrees(*path, "source", expected=source, source=_FROM_RECIPE)

    def _compare_held(self, path: Path, edit: Edit, on_paper: OnPaper) -> None:
        """The recipe says which gates are counted. Calibration counted them."""
        found = self._found
        openings = edit.openings(on_paper)
        if not openings:
            found.shows(*path, expected=None, source="for an edit without a condition or a gate")
            return
        if found.at(*path) is None:
            return
        words = [opening.words for opening in openings]
        gates = words if len(words) > 1 else []
        told = [gate["words"] for gate in found.at(*path, "gates")]
        if told != gates:
            found.problems.append(
                f"{field_path((*path, 'gates'))}: found {as_json(told)}, expected "
                f"{as_json(gates)} {_FROM_RECIPE}"
            )

    def _compare_amounts(
        self, path: Path, edit: Edit, term: Term, recording: Recording, on_paper: OnPaper
    ) -> None:
        found, expected = self._found, recording.amounts
        if len(found.at(*path)) != len(expected) or not expected:
            found.agrees(*path, expected=[None] * len(expected), source="one for each strength")
            found.shown.add(path)
            return
        for index, (amount, feature) in enumerate(zip(expected, on_paper.features, strict=True)):
            place = (*path, index)
            if isinstance(edit, _WRITES_ALL):
                length = float(term.direction.norm())
                found.shows(*place, "direction_norm", expected=length, source=_FROM_EDIT)
            if isinstance(edit, FeatureEdit):
                own = term.normalization is not Normalization.NONE
                found.shows(*place, "own_norm", expected=own, source=_FROM_EDIT)
            for name in _AMOUNT_FIELDS:
                value = getattr(amount, name)
                source = "from the recipe and what calibration is said to have found"
                found.shows(*place, name, expected=value, source=source)
            if feature is None:
                for name, nothing in (("activity", None), ("own_norm", False)):
                    found.shows(*place, name, expected=nothing, source="for a vector")
            else:
                site = ("calibration", "sae_fit", str(self._edited.place))
                active = found.at(*site, "features", feature)
                found.agrees(*place, "activity", expected=active, source=f"from {field_path(site)}")


def _but_labels(path: Path, value: Any) -> Iterator[Path]:
    """Every field under a path that is no label, or that holds none."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name != "label":
                yield from _but_labels((*path, name), item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _but_labels((*path, index), item)
    else:
        yield path


def _distinct(edits: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Edits without those that stand behind their like: one edit may be several terms."""
    return [edit for edit, _ in groupby(edits)]


def _shown(edit: Edit) -> dict[str, Any]:
    return edit.model_dump(mode="json", exclude_none=True)
