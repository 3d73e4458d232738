"""What a manifest says of each inserted layer, against the construction and the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor

from hubsplice import __version__
from hubsplice.checkpoint.manifest import INJECTION, MARKING, SPLIT, InsertedLayer
from hubsplice.compiling.construct import construction_constants
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.marking import is_conditional
from hubsplice.errors import CheckpointError
from hubsplice.families.blocks import Construction
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.site import Site
from hubsplice.proving.stored_layer import StoredLayer, last_in_use, stored_layers
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.proof import reader
from hubsplice.verifying.statements.ledger import Comparison
from hubsplice.verifying.weights import StoredTensor

_FROM_CODE = "from the family's construction"
_FROM_WEIGHTS = "from the weights"


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
    dtype = claim.dtype
    assert dtype is not None
    layers = stored_layers(claim.architecture, claim.manifest, dtype, reader(stored))
    weights = {layer.place: layer for layer in layers}
    for place, group in groupby(numbered, key=lambda item: item[1].place):
        *before, (last, layer) = group
        site = sites.get(place)
        conditional = site is not None and is_conditional(site)
        expected = claim.architecture.layers_per_splice(place) + conditional
        if len(before) + 1 != expected:
            found.problems.append(
                f"layers: layer {place}: found {len(before) + 1}, expected {expected} of them there"
            )
        if conditional and place in weights:
            assert site is not None
            _compare_conditional(found, [*before, (last, layer)], claim, site, weights[place])
            continue
        for index, _ in before:
            _compare_maker_of_room(found, index, claim)
        _compare_editing(found, last, layer, claim, site)
        if place in weights:
            _compare_weights(found, last, claim, site, weights[place].layer)
    return found


def _compare_conditional(
    found: Comparison,
    layers: Sequence[tuple[int, InsertedLayer]],
    claim: Claim,
    site: Site,
    stored: StoredLayer,
) -> None:
    """The layer that marks and the one that edits, each against its own part of the edit."""
    try:
        parts = () if stored.marking is None else stored.staged(site)
    except CheckpointError as error:
        found.problems.append(str(error))
        return
    if stored.marking is None or len(layers) != len(parts):
        found.problems.append(f"layers: layer {stored.place}: none of them marks tokens")
        return
    names = (MARKING, None)
    held = (stored.marking.layer, stored.layer)
    for (index, layer), part, name, weights in zip(layers, parts, names, held, strict=True):
        _compare_editing(found, index, layer, claim, part, name)
        _compare_weights(found, index, claim, part, weights)


def _compare_maker_of_room(found: Comparison, index: int, claim: Claim) -> None:
    name = SPLIT if claim.architecture.reads_attention else INJECTION
    found.shows("layers", index, "construction", expected=name, source=_FROM_CODE)
    constants = {"construction": name, "neurons": 0, "jump_gates": []}
    found.shows("layers", index, "constants", expected=constants, source=_FROM_CODE)


def _compare_editing(
    found: Comparison,
    index: int,
    layer: InsertedLayer,
    claim: Claim,
    site: Site | None,
    name: str | None = None,
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
    name = chosen["construction"] if name is None else name
    chosen["construction"] = name
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
    found: Comparison, index: int, claim: Claim, site: Site | None, layer: CompiledLayer
) -> None:
    if site is None or not site.terms:
        return
    path, tensors = ("layers", index, "constants"), layer.tensors()
    found.shows(*path, "neurons", expected=last_in_use(layer), source=_FROM_WEIGHTS)
    if claim.architecture.family.becomes.block.construction is Construction.PRENORM:
        bias = tensors.get("attention_bias")
        channels = 0 if bias is None else int((bias != 0).sum())
        found.shows(*path, "bias_channels", expected=channels, source=_FROM_WEIGHTS)
    gates = _jump_gates(site, tensors)
    if gates is not None:
        found.shows(*path, "jump_gates", expected=gates, source=_FROM_WEIGHTS)


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
