"""Whether two inserted layers do the same, where their tensors are not the same.

A construction has free choices, such as the channels that carry a constant, and takes the best by
what calibration measured. Near ties fall otherwise where sums are rounded otherwise: all tensors
are then others, and the layer does the same. So layers are compared by what they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
from pydantic import Field
from torch import Tensor

from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.output_bias import OutputBias
from hubsplice.intervention.edits import edits_of
from hubsplice.proving.inspection import InspectedLayer, inspected_layers
from hubsplice.proving.stored_layer import neurons_in_use, stored_layers
from hubsplice.rebuilding.rebuild import Rebuilt
from hubsplice.verifying.result import Record

_MOST_MORE_WRONG = 1.25
"""How much less exact than the rebuilt layer a published one may be, as a factor."""

_MOST_GAIN = 0.005
"""How much more or less of the edit it may make: `x1.01` is twice as much."""


class EditGain(Record):
    """How much of one edit the two layers make, on the tokens on which it acts."""

    label: str
    tokens: int
    found: float = Field(description="By the published layer; 1 is all of it.")
    expected: float = Field(description="By the rebuilt one.")
    margin: float = Field(description="What rounding on so many tokens may do to it.")

    @property
    def agrees(self) -> bool:
        """Whether they make as much of it, as far as the tokens can tell."""
        return abs(self.found - self.expected) <= _MOST_GAIN + self.margin

    def __str__(self) -> str:
        return (
            f"{self.label}: {self.found:.2%} and {self.expected:.2%} of it, on {self.tokens:,} "
            f"tokens (± {self.margin:.2%})"
        )


class SiteAgreement(Record):
    """What the published layer and the rebuilt one add on the same stream, both at one place.

    Everything is a root mean square over calibration tokens, sinks apart, relative to the edit. It
    holds what the stream's own rounding does, which is most of it for an edit that seldom acts.
    """

    place: str
    tokens: int
    apart: float = Field(description="What the two add differently.")
    found_error: float = Field(description="What the published one adds beside the exact edit.")
    expected_error: float = Field(description="The same of the rebuilt one.")
    edits: tuple[EditGain, ...]
    problems: tuple[str, ...] = Field(
        (), description="What the published layer's weights hold that has no part in the edit."
    )
    found_neurons: int
    expected_neurons: int

    @property
    def agrees(self) -> bool:
        """Whether the published layer is as good a copy of the edit, and nothing else."""
        return (
            not self.problems
            and self.found_neurons == self.expected_neurons
            and self.found_error <= _MOST_MORE_WRONG * self.expected_error
            and all(edit.agrees for edit in self.edits)
        )

    def __str__(self) -> str:
        made = "; ".join(map(str, self.edits)) or "no edits"
        return (
            f"after layer {self.place}, the published layer and the rebuilt one: {made}. Errors of "
            f"{self.found_error:.1%} and {self.expected_error:.1%} over {self.tokens:,} tokens, in "
            f"{self.found_neurons} and {self.expected_neurons} neurons"
            f"{''.join(f'; {problem}' for problem in self.problems[:3])}"
        )


def site_agreements(
    rebuilt: Rebuilt, published: Mapping[str, Tensor], made: Mapping[str, Tensor]
) -> tuple[SiteAgreement, ...]:
    """Run both layers of every splice that has one on the calibration stream.

    Args:
        rebuilt: what the recipe gave this time.
        published: the tensors of the model's inserted layers, by name.
        made: the rebuilt ones.
    """
    layers = stored_layers(
        rebuilt.plan.architecture, rebuilt.manifest, rebuilt.plan.dtype, published.__getitem__
    )
    theirs = {stored.place: stored.whole for stored in layers}
    found, own = _inspected(rebuilt, published), _inspected(rebuilt, made)
    return tuple(
        _agreement(
            rebuilt,
            i,
            theirs[lowered.site.place],
            layer,
            _problems(found[str(lowered.site.place)], own[str(lowered.site.place)]),
        )
        for i, (lowered, layer) in enumerate(
            zip(rebuilt.compiled.lowered, rebuilt.compiled.layers, strict=True)
        )
        if not isinstance(layer, OutputBias) and lowered.site.place in theirs
    )


def _inspected(
    rebuilt: Rebuilt, tensors: Mapping[str, Tensor]
) -> dict[str, tuple[InspectedLayer, ...]]:
    """What weights hold, by the place, against the rebuilt manifest and intervention."""
    found = inspected_layers(
        rebuilt.plan.architecture,
        rebuilt.manifest,
        rebuilt.plan.dtype,
        rebuilt.compiled.intervention,
        tensors.__getitem__,
    )
    # A splice whose edits have conditions has two layers.
    return {place: tuple(layers) for place, layers in groupby(found, key=lambda x: x.place)}


def _problems(found: Sequence[InspectedLayer], own: Sequence[InspectedLayer]) -> tuple[str, ...]:
    """What is wrong with the weights of a published splice's layers.

    Where even the rebuilt layer reads more than the proof allows, as one does that is fitted to
    little text, reading more is no problem.
    """
    return tuple(
        problem
        for theirs, ours in zip(found, own, strict=True)
        for problem in theirs.problems
        if not (ours.problems and problem in theirs.loose)
    )


def _agreement(
    rebuilt: Rebuilt,
    index: int,
    found: CompiledLayer,
    expected: CompiledLayer,
    problems: tuple[str, ...],
) -> SiteAgreement:
    site = rebuilt.compiled.lowered[index].site
    eps, dtype = rebuilt.plan.architecture.norm_eps, rebuilt.plan.dtype
    h = rebuilt.streams[index].to(dtype)
    h = h[~site.is_sink(h.float())]
    exact = site.delta(h.float()).double()
    with torch.inference_mode():
        made = [(layer(h, eps).float() - h.float()).double() for layer in (found, expected)]
    # Where the edit does nothing, what the stream rounds to is the measure.
    size = float(exact.norm()) or float(h.double().norm()) * torch.finfo(dtype).eps
    return SiteAgreement(
        place=str(site.place),
        tokens=len(h),
        apart=float((made[0] - made[1]).norm()) / size,
        found_error=float((made[0] - exact).norm()) / size,
        expected_error=float((made[1] - exact).norm()) / size,
        edits=tuple(
            _gain(label, edit.delta(h.float()).double(), *(x - exact for x in made))
            for label, edit in edits_of(site)
        ),
        problems=problems,
        found_neurons=int(neurons_in_use(found).sum()),
        expected_neurons=int(neurons_in_use(expected).sum()),
    )


def _gain(label: str, exact: Tensor, found: Tensor, expected: Tensor) -> EditGain:
    """Of what two layers do wrong, [tokens, d], the part that is more or less of one edit."""
    lengths = exact.square().sum(dim=-1)
    whole = float(lengths.sum())
    along = [(wrong * exact).sum(dim=-1) for wrong in (found, expected)]
    # Errors of tokens add up like noise; both layers have some.
    noise = 2**0.5 * float(along[1].norm()) / whole if whole else 0.0
    gains = [1.0 + float(x.sum()) / whole if whole else 1.0 for x in along]
    return EditGain(
        label=label,
        tokens=int((lengths > 0).sum()),
        found=gains[0],
        expected=gains[1],
        margin=4 * noise,
    )
