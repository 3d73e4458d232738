"""What inserted layers do, said from their weights and beside what the intervention says."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import BaseModel, ConfigDict, Field

from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import Manifest
from hubsplice.constructions.marking import is_conditional
from hubsplice.errors import CheckpointError
from hubsplice.families.architecture import Architecture
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.site import Site
from hubsplice.proving.findings import Findings, Recovered
from hubsplice.proving.stored_layer import ReadTensor, StoredLayer, stored_layers
from hubsplice.proving.structure import checked


class Record(BaseModel):
    """A part of the result."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RecoveredPart(Record):
    """A part of an edit, as the weights have it."""

    label: str = Field(description="The edit, as the intervention calls it.")
    part: str = Field(description="A jump, a bend, a line, or the constant of edits.")
    neurons: int = Field(description="How many neurons make it.")
    strength: float | None = Field(
        description="What is written, over what the intervention asks for; null where it goes with "
        "a read-out of the stream."
    )
    at: float | None = Field(
        description="The pre-activation at which it begins, as attention's constant has it; null "
        "where there is none."
    )
    reads: float | None = Field(description="Cosine of what is read and the edit's encoder.")
    writes: float = Field(description="Cosine of what is written and the edit's direction.")

    @staticmethod
    def of(found: Recovered) -> RecoveredPart:
        """A record of what was recovered."""
        return RecoveredPart(
            label=found.label,
            part=found.part,
            neurons=found.neurons,
            strength=found.strength,
            at=found.at,
            reads=found.reads,
            writes=found.writes,
        )


class InspectedLayer(Record):
    """One inserted layer."""

    place: str = Field(description="After which layer of the base the stream is edited.")
    index: int = Field(description="The inserted layer's index in the model.")
    neurons: int = Field(description="How many neurons it has room for.")
    used: int = Field(description="How many of them hold anything.")
    guard: int = Field(description="How many of those are there for attention sinks.")
    parts: tuple[RecoveredPart, ...]
    problems: tuple[str, ...] = Field(description="What has no part in the edit, or a wrong one.")
    loose: tuple[str, ...] = Field(
        (),
        description="Those of the problems that a read-out would explain that was fitted to little "
        "text.",
    )
    unproven: tuple[str, ...] = Field(description="What the weights alone can't prove.")


def inspected_layers(
    architecture: Architecture,
    manifest: Manifest,
    dtype: torch.dtype,
    intervention: Intervention,
    read: ReadTensor,
) -> Iterator[InspectedLayer]:
    """What the layer of every splice does.

    Args:
        architecture: the base.
        manifest: the checkpoint's; its layer map must hold.
        dtype: of the inserted layers.
        intervention: the edits that they stand for.
        read: reads a tensor of the checkpoint by its name.
    """
    sites = {site.place: site for site in intervention.sites}
    norms = manifest.calibration.median_norm if manifest.calibration else {}
    for whole in stored_layers(architecture, manifest, dtype, read):
        for stored, site in _with_sites(whole, sites.get(whole.place)):
            yield _inspected(stored, site, norms.get(str(stored.place), 0.0))


def _with_sites(
    stored: StoredLayer, site: Site | None
) -> Iterator[tuple[StoredLayer, Site | None]]:
    """The layers of a splice that do anything, each with what it is to do.

    Raises:
        CheckpointError: there is a layer that marks and nothing to mark, or the other way round.
    """
    conditional = site is not None and is_conditional(site)
    if conditional != (stored.marking is not None):
        raise CheckpointError(
            f"{MANIFEST}: layer {stored.place}: "
            + (
                "its edits have conditions, and no layer marks tokens for them"
                if conditional
                else "a layer marks tokens, and its edits have no conditions"
            )
        )
    if stored.marking is None:
        yield stored, site
        return
    assert site is not None
    marking, editing = stored.staged(site)
    yield stored.marking, marking
    yield stored, editing


def _inspected(stored: StoredLayer, site: Site | None, median_norm: float) -> InspectedLayer:
    findings = _findings(stored, site, median_norm)
    rows = next(t for t in stored.layer.tensors().values() if t.dim() == 2)
    return InspectedLayer(
        place=str(stored.place),
        index=stored.index,
        neurons=rows.shape[0],
        used=findings.used,
        guard=findings.guard,
        parts=tuple(map(RecoveredPart.of, findings.recovered)),
        problems=tuple(findings.problems),
        loose=tuple(findings.loose),
        unproven=tuple(findings.unproven),
    )


def _findings(stored: StoredLayer, site: Site | None, median_norm: float) -> Findings:
    if not all(bool(torch.isfinite(t).all()) for t in stored.layer.tensors().values()):
        return Findings(stored.names, ["a tensor of the inserted layer holds NaN or infinity"])
    found = (
        checked(stored, site, median_norm) if site is not None and site.terms else _empty(stored)
    )
    for name, tensor in stored.silent.items():
        if tensor.any():
            place = tuple(tensor.nonzero()[0].tolist())
            found.problems.append(f"{name}: element {place} holds something, and no edit uses it")
    return found


def _empty(stored: StoredLayer) -> Findings:
    """A layer without edits: nothing that it adds may be anything but zero."""
    found = Findings(stored.names)
    norms = ("attention_norm", "output_norm")
    for role, tensor in stored.layer.tensors().items():
        if role not in norms and tensor.any():
            place = tuple(tensor.nonzero()[0].tolist())
            found.problems.append(
                f"{found.names.get(role, role)}: element {place} holds something, and the "
                "intervention has no edits there"
            )
    return found
