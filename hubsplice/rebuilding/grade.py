"""How near a rebuild came to the published model, and what explains the rest."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pydantic import Field

from hubsplice.rebuilding.function import SiteAgreement
from hubsplice.rebuilding.records import FieldDifference
from hubsplice.rebuilding.tensors import TensorDifference
from hubsplice.rendering.content import Line, Part, Table, Tone
from hubsplice.rendering.rendered import Rendered
from hubsplice.verifying.result import Record

MOST_WORST = 4.0
"""In units of the precision: what a single element of a tensor may differ by through rounding."""

MOST_TYPICAL = 0.5
"""In units: what all elements together may differ by. A factor of 1.01 on a tensor in bfloat16 is
1.3, and one of 1.0001 in float32 is 840."""

MOST_OF_RECORDS = 2.0**13
"""In units of float32: what a number that calibration found may differ by, about a thousandth."""

_CHOSEN = re.compile(r"manifest\.layers\[\d+\]\.constants\.")
_QUOTED = "manifest.calibration.warnings"

_SHOWN = 10

NOT_COMPARED = (
    "Not compared: the base's own tensors, which `hubsplice verify` proves byte for byte; the "
    "card; and the fidelity report, which `hubsplice measure` makes again."
)


class Grade(enum.StrEnum):
    """How near a rebuild came."""

    SAME_BYTES = "same bytes"
    WITHIN_ROUNDING = "same within rounding"
    DIFFERENT = "different"


class Reproduction(Rendered, Record):
    """A published model beside what its recipe gives now.

    Attributes:
        model: the published model: its folder, or its repository and commit.
        base: the base that it was built from again.
        grade: `same bytes`, `same within rounding` or `different`.
        verdict: one sentence.
        compared: how many tensors were.
        tensors: those that are not the same, the worst first.
        fields: what else differs.
        sites: what the layers do whose tensors are not the same.
        environment: where this environment differs from the one that the model was built in.
        meaning: for a difference, what it means; for the rest, empty.
        folder: where the rebuilt files are, if they were to be kept.
    """

    model: str
    base: str
    grade: Grade
    verdict: str = Field(description="One sentence; first on the terminal.")
    compared: int
    tensors: tuple[TensorDifference, ...] = ()
    fields: tuple[FieldDifference, ...] = ()
    sites: tuple[SiteAgreement, ...] = ()
    environment: tuple[str, ...] = Field((), description="Each as `name: when it was built, here`.")
    meaning: str = ""
    folder: Path | None = None

    def content(self) -> Iterable[Part]:
        """The verdict, what it means, and what differs."""
        yield Line(self.verdict, Tone.of(self.grade is not Grade.DIFFERENT))
        if self.meaning:
            yield Line(self.meaning)
        if self.tensors:
            yield Table.of_text(
                ("tensor", "elements that differ", "worst, units", "typical, units"),
                tuple(_row(tensor) for tensor in self.tensors[:_SHOWN]),
                "",
            )
        yield from (Line(str(site)) for site in self.sites)
        yield from (Line(str(field)) for field in self.fields[:_SHOWN])
        hidden = len(self.tensors[_SHOWN:]) + len(self.fields[_SHOWN:])
        if hidden:
            yield Line(f"and {hidden} more (--json shows all)", Tone.FAINT)
        if self.environment:
            yield Line("The environment differs, when it was built and here:")
            yield from (Line(f"  {line}") for line in self.environment)
        yield Line(NOT_COMPARED, Tone.FAINT)
        if self.folder is not None:
            yield Line(f"The rebuilt files are in {self.folder}")


def graded(
    *,
    model: str,
    base: str,
    compared: int,
    tensors: Sequence[TensorDifference],
    fields: Sequence[FieldDifference],
    sites: Sequence[SiteAgreement],
    filled: Collection[str],
    environment: tuple[str, ...],
    dtype: str,
    other_text: bool,
    folder: Path | None,
) -> Reproduction:
    """The grade of a rebuild.

    Args:
        model: see `Reproduction`.
        base: the same.
        compared: the same.
        tensors: those that are not the same, in the model's order.
        fields: everything else that is not.
        sites: see `Reproduction`.
        filled: the tensors that those layers are made of.
        environment: see `Reproduction`.
        dtype: the tensors' precision.
        other_text: whether the calibration text is not the same.
        folder: see `Reproduction`.
    """
    ordered = sorted(tensors, key=_badness, reverse=True)
    first = next(iter([*map(str, tensors), *map(str, fields)]), "")
    # Free choices of a construction that fell otherwise show in all tensors, and not in what
    # they do.
    same_function = bool(sites) and all(site.agrees for site in sites)
    beyond = [
        str(t) for t in tensors if not _is_rounding(t) and not (same_function and t.name in filled)
    ]
    beyond += [problem for site in sites for problem in site.problems]
    beyond += [str(f) for f in fields if not _is_small(f, same_function=same_function)]
    if not first:
        grade, meaning = Grade.SAME_BYTES, ""
        verdict = (
            f"Reproduced, same bytes: the {compared} tensors that are not the base's, config.json, "
            "the index, the exact edit and the manifest's record of them came out as published."
        )
    elif not beyond and environment:
        grade, meaning = Grade.WITHIN_ROUNDING, ""
        near = _how_near(ordered, fields, sites, compared, dtype)
        what = ", ".join(line.partition(":")[0] for line in environment)
        verdict = f"Reproduced, same within rounding: {near}; the environment differs in {what}."
    else:
        grade = Grade.DIFFERENT
        meaning = _meaning(beyond, tensors, fields, other_text=other_text)
        worst = str(ordered[0]) if ordered else (beyond or [first])[0]
        lead = (beyond or [first])[0]
        verdict = f"NOT reproduced, different. First: {lead}." + (
            f" Worst: {worst}." if worst != lead else ""
        )
    return Reproduction(
        model=model,
        base=base,
        grade=grade,
        verdict=verdict,
        compared=compared,
        tensors=tuple(ordered),
        fields=tuple(fields),
        sites=tuple(sites),
        environment=environment,
        meaning=meaning,
        folder=folder,
    )


def _how_near(
    ordered: Sequence[TensorDifference],
    fields: Sequence[FieldDifference],
    sites: Sequence[SiteAgreement],
    compared: int,
    dtype: str,
) -> str:
    if not ordered:
        return f"all {compared} tensors are the same, and {len(fields)} numbers about them are not"
    worst = ordered[0]
    if all(map(_is_rounding, ordered)):
        return (
            f"{len(ordered)} of {compared} tensors differ, at most by {worst.worst:.2g} units of "
            f"{dtype} ({worst.name})"
        )
    gains = [edit for site in sites for edit in site.edits]
    least = min((min(edit.found, edit.expected) for edit in gains), default=1.0)
    most = max((max(edit.found, edit.expected) for edit in gains), default=1.0)
    return (
        f"the constructions chose otherwise, so that {len(ordered)} of {compared} tensors are "
        f"others, and the layers do the same: of each edit both make {least:.2%} to {most:.2%}"
    )


def _meaning(
    beyond: Sequence[str],
    tensors: Sequence[TensorDifference],
    fields: Sequence[FieldDifference],
    *,
    other_text: bool,
) -> str:
    if other_text:
        return (
            "The calibration text is another one, so that the layers were fitted to other tokens: "
            "built-in text comes with Python and hubsplice, and needs their versions; another "
            "seed or dataset gives another text too."
        )
    if not beyond:
        return (
            "The differences are as small as rounding, but nothing that is recorded of the "
            "environment differs, and the same environment gives the same bytes: the files were "
            "changed after the build."
        )
    if tensors and not fields:
        return (
            "The recipe gives the published edit and record, but not the published tensors: the "
            "inserted layers compute something else than what is declared."
        )
    if fields and not tensors:
        return (
            "The tensors are those that the recipe gives; what is declared beside them is not "
            "what they were built from."
        )
    return "The published model was not built from the published recipe."


def _is_rounding(tensor: TensorDifference) -> bool:
    return (
        tensor.worst is not None
        and tensor.typical is not None
        and tensor.worst <= MOST_WORST
        and tensor.typical <= MOST_TYPICAL
    )


def _is_small(field: FieldDifference, *, same_function: bool) -> bool:
    """Whether a record differs as calibration does elsewhere, or as a construction's choices do."""
    if same_function and (_CHOSEN.match(field.field) or field.field.startswith(_QUOTED)):
        return True
    return field.units is not None and field.units <= MOST_OF_RECORDS


def _badness(tensor: TensorDifference) -> float:
    return float("inf") if tensor.worst is None else tensor.worst


def _row(tensor: TensorDifference) -> tuple[str, ...]:
    if tensor.problem is not None:
        return tensor.name, tensor.problem, "", ""
    return (
        tensor.name,
        f"{tensor.differing:,} of {tensor.elements:,}",
        f"{tensor.worst:.3g}",
        f"{tensor.typical:.2g}",
    )
