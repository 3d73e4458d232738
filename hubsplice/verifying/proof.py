"""Whether inserted layers do what the intervention says, and the intervention what the recipe says.

Both are worked out from the files alone. What neither can prove is in the details of the checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from safetensors import safe_open
from torch import Tensor

from hubsplice.edits.base import Edit
from hubsplice.errors import HubspliceError
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.saved import RECIPE
from hubsplice.proving.binding import edit_problems
from hubsplice.proving.inspection import InspectedLayer, inspected_layers
from hubsplice.proving.stored_layer import ReadTensor
from hubsplice.recipe.reading import parsed_edit
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.edit_terms import terms_of_first_edit
from hubsplice.verifying.result import Check
from hubsplice.verifying.weights import StoredTensor

STRUCTURE = "structure"
STRENGTHS = "strengths"
NAMES = (STRUCTURE, STRENGTHS)

# Tokens of calibration for each channel: read-outs of right layers were as short as they should be
# with 35 on a real model, and not with 16 on tiny ones.
_ENOUGH = 32


def proof_checks(
    claim: Claim, intervention: Intervention | None, stored: Mapping[str, StoredTensor]
) -> tuple[Check, ...]:
    """What the weights of inserted layers say of the intervention, and the recipe's words of it."""
    if intervention is None:
        reason = "there is no intervention to compare with"
        return tuple(Check.impossible(name, reason) for name in NAMES)
    return _structure(claim, intervention, stored), strengths(claim, intervention)


def reader(stored: Mapping[str, StoredTensor]) -> ReadTensor:
    """Reads tensors from where they are stored."""

    def read(name: str) -> Tensor:
        with safe_open(stored[name].path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    return read


def _structure(
    claim: Claim, intervention: Intervention, stored: Mapping[str, StoredTensor]
) -> Check:
    dtype = claim.dtype
    assert dtype is not None
    wanted = {
        name: want
        for name, want in claim.expected.items()
        if want.layer is not None or want.base_name is None
    }
    for name, want in wanted.items():
        if name not in stored or (stored[name].entry.dtype, stored[name].entry.shape) != (
            want.dtype,
            want.shape,
        ):
            return Check.impossible(STRUCTURE, f"{name} is not there as it must be")
    return structure(claim, dtype, intervention, reader(stored))


def structure(
    claim: Claim, dtype: torch.dtype, intervention: Intervention, read: ReadTensor
) -> Check:
    """Whether inserted layers, as they are read, have no part that no edit has."""
    try:
        found = tuple(
            inspected_layers(claim.architecture, claim.manifest, dtype, intervention, read)
        )
    except HubspliceError as error:
        return Check.impossible(STRUCTURE, str(error))
    problems = [problem for layer in found for problem in layer.problems]
    calibration, width = claim.manifest.calibration, claim.architecture.hidden_size
    loose = {problem for layer in found for problem in layer.loose}
    if (
        problems
        and loose.issuperset(problems)
        and calibration is not None
        and calibration.tokens < _ENOUGH * width
    ):
        return Check(
            name=STRUCTURE,
            passed=None,
            detail=f"not proven: what so little text was fitted to ({calibration.tokens:,} tokens, "
            f"for a stream of {width:,} channels) may read anything; `hubsplice reproduce` builds "
            "it again",
            problems=tuple(problems),
        )
    return Check.of(STRUCTURE, problems, _held(found))


def _held(found: tuple[InspectedLayer, ...]) -> str:
    used, neurons = sum(x.used for x in found), sum(x.neurons for x in found)
    held = (
        f"{used:,} of {neurons:,} neurons are used, each for a part of an edit, and the others are "
        "zero"
    )
    unproven = list(dict.fromkeys(text for layer in found for text in layer.unproven))
    if unproven:
        held += ". Not proven by weights: " + "; ".join(unproven)
    return held


def strengths(claim: Claim, intervention: Intervention) -> Check:
    """Whether the intervention's functions follow from the recipe's words."""
    return Check.of(
        STRENGTHS,
        list(_strength_problems(claim, intervention)),
        "the intervention's functions follow from the recipe's words and the recorded amounts",
    )


def _strength_problems(claim: Claim, intervention: Intervention) -> Iterator[str]:
    calibration = claim.manifest.calibration
    norms = calibration.median_norm if calibration else {}
    for site, record in zip(intervention.sites, claim.manifest.edits, strict=False):
        terms = list(zip(site.terms, record.terms, strict=False))
        while terms:
            first = terms[0][1]
            count = terms_of_first_edit([record for _, record in terms])
            own, terms = terms[:count], terms[count:]
            edit = _edit(first.edit)
            if isinstance(edit, str):
                yield f"{RECIPE}: layer {site.place}: {first.label}: {edit}"
                continue
            for problem in edit_problems(
                edit, [t for t, _ in own], [r for _, r in own], norms.get(str(site.place))
            ):
                yield f"{RECIPE}: layer {site.place}: {first.label}: {problem}"


def _edit(content: Mapping[str, object]) -> Edit | str:
    try:
        return parsed_edit(content)
    except HubspliceError as error:
        return str(error)
    except ValueError as error:
        return f"the manifest's edit can't be read: {error}"
