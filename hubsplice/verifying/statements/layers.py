"""What a manifest says of each inserted layer, against the construction and the weights."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import torch
from safetensors import safe_open
from torch import Tensor

from hubsplice import __version__
from hubsplice.checkpoint.manifest import INJECTION, SPLIT, InsertedLayer
from hubsplice.compiling.construct import construction_constants
from hubsplice.families.blocks import Construction
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.site import Site
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.statements.ledger import Comparison
from hubsplice.verifying.weights import StoredTensor

_FROM_CODE = "from the family's construction"
_FROM_WEIGHTS = "from the weights"

_OF_NEURONS = {
    **{f"{part}_{kind}": 0 for part in ("gate", "up", "in") for kind in ("weight", "bias")},
    "down_weight": 1,
    "out_weight": 1,
}
"""The roles of tensors that have an entry for each neuron, and along which dimension."""


def layer_records(
    claim: Claim, intervention: Intervention, stored: Mapping[str, StoredTensor]
) -> Comparison:
    """Compare the record of every inserted layer with what the construction and the weights say.

    Args:
        claim: the manifest; its layer map holds.
        intervention: the exact edit; it edits where the manifest says.
        stored: the checkpoint's tensors, by name; those that are expected are there.
    """
    found = Comparison(claim.manifest)
    sites = {site.place: site for site in intervention.sites}
    numbered = list(enumerate(claim.manifest.layers))
    for place, group in groupby(numbered, key=lambda item: item[1].place):
        *before, (last, layer) = group
        expected = claim.architecture.layers_per_splice(place)
        if len(before) + 1 != expected:
            found.problems.append(
                f"layers: layer {place}: found {len(before) + 1}, expected {expected} of them there"
            )
        for index, _ in before:
            _compare_maker_of_room(found, index, claim)
        _compare_editing(found, last, layer, claim, sites.get(place))
        _compare_weights(found, last, claim, sites.get(place), stored)
    return found


def _compare_maker_of_room(found: Comparison, index: int, claim: Claim) -> None:
    name = SPLIT if claim.architecture.reads_attention else INJECTION
    found.shows("layers", index, "construction", expected=name, source=_FROM_CODE)
    constants = {"construction": name, "neurons": 0, "jump_gates": []}
    found.shows("layers", index, "constants", expected=constants, source=_FROM_CODE)


def _compare_editing(
    found: Comparison, index: int, layer: InsertedLayer, claim: Claim, site: Site | None
) -> None:
    path = ("layers", index)
    if site is None or not site.terms:
        found.shows(*path, "construction", expected="empty", source="of a layer without edits")
        nothing: dict[str, object] = {"jump_gates": []}
        found.shows(*path, "constants", expected=nothing, source="of a layer without edits")
        return
    dtype = claim.dtype
    if dtype not in (torch.bfloat16, torch.float32):
        found.problems.append(f"dtype: found {claim.manifest.dtype}, which nothing is compiled for")
        return
    chosen = construction_constants(claim.architecture, dtype)
    name = chosen["construction"]
    found.shows(*path, "construction", expected=name, source=_FROM_CODE)
    for key, value in chosen.items():
        if key not in layer.constants:
            found.problems.append(f"layers[{index}].constants.{key}: missing")
        elif claim.manifest.hubsplice == __version__:
            found.shows(*path, "constants", key, expected=value, source=_FROM_CODE)
        else:
            # Another version may have other constants.
            found.shows_if(*path, "constants", key, expected=value)


def _compare_weights(
    found: Comparison,
    index: int,
    claim: Claim,
    site: Site | None,
    stored: Mapping[str, StoredTensor],
) -> None:
    if site is None or not site.terms:
        return
    path, tensors = ("layers", index, "constants"), _filled(claim, index, stored)
    used = [
        _last_used(tensor, _OF_NEURONS[role])
        for role, tensor in tensors.items()
        if role in _OF_NEURONS
    ]
    neurons = max(used, default=0)
    found.shows(*path, "neurons", expected=neurons, source=_FROM_WEIGHTS)
    if claim.architecture.family.becomes.block.construction is Construction.PRENORM:
        bias = tensors.get("attention_bias")
        channels = 0 if bias is None else int((bias != 0).sum())
        found.shows(*path, "bias_channels", expected=channels, source=_FROM_WEIGHTS)
    gates = _jump_gates(site, tensors)
    if gates is not None:
        found.shows(*path, "jump_gates", expected=gates, source=_FROM_WEIGHTS)


def _filled(claim: Claim, index: int, stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """The tensors of an inserted layer that an edit fills, by role, neurons by rows."""
    layer = claim.inserted_indices[index]
    block, projections = claim.architecture.family.becomes.block, claim.architecture.projections
    prefix, found = claim.architecture.family.becomes.prefix, {}
    for role, part in block.roles.items():
        name = f"{prefix}{layer}.{part}"
        if name not in stored:
            continue
        with safe_open(stored[name].path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        projection = projections.get(part.removesuffix(".weight"))
        transposed = projection is not None and projection.transposed
        found[role] = tensor.T if transposed and tensor.dim() == 2 else tensor
    return found


def _last_used(tensor: Tensor, neurons: int) -> int:
    """How many neurons there are up to the last that has anything, along a dimension."""
    others = tuple(d for d in range(tensor.dim()) if d != neurons)
    used = (tensor != 0).any(dim=others) if others else tensor != 0
    return int(used.nonzero().max()) + 1 if used.any() else 0


def _jump_gates(site: Site, tensors: Mapping[str, Tensor]) -> list[list[int]] | None:
    """The neuron of every jump and on which side it opens; None where the weights don't tell.

    A layer begins with one neuron for each jump, in the order of the terms, and its gate reads the
    term's encoder, turned round where it opens below the threshold.
    """
    rows = tensors.get("gate_weight", tensors.get("in_weight"))
    jumps = [
        (number, term.encoder)
        for number, term in enumerate(site.terms)
        for kink in term.function.kinks
        if kink.jump
    ]
    if rows is None or len(rows) < len(jumps):
        return None
    gates = []
    for neuron, (number, encoder) in enumerate(jumps):
        along = float(rows[neuron].double() @ encoder.double())
        gates.append([number, neuron, 1 if along >= 0 else -1])
    return gates
