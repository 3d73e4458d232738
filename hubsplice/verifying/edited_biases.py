"""Biases that carry constant edits, against the intervention that they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from safetensors import safe_open

from hubsplice.checkpoint.manifest import EditedBias
from hubsplice.constructions.output_bias import OutputBias
from hubsplice.intervention.intervention import Intervention
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.result import Check
from hubsplice.verifying.weights import StoredTensor

EDITED_BIASES = "edited biases"


def edited_bias_check(
    claim: Claim, intervention: Intervention | None, stored: Mapping[str, StoredTensor]
) -> Check:
    """Whether every such bias holds its edit, rounded, bit for bit: here files prove the edit."""
    if intervention is None:
        return Check.impossible(EDITED_BIASES, "there is no intervention to compare with")
    problems = [
        f"{bias.tensor}: {problem}"
        for bias in claim.manifest.biases
        for problem in _problems(bias, claim, intervention, stored)
    ]
    count = len(claim.manifest.biases)
    return Check.of(EDITED_BIASES, problems, f"{count}: the intervention's constants, bit for bit")


def _problems(
    bias: EditedBias,
    claim: Claim,
    intervention: Intervention,
    stored: Mapping[str, StoredTensor],
) -> Iterator[str]:
    site = next((s for s in intervention.sites if s.place == bias.place), None)
    if site is None or not site.terms:
        yield "the intervention has no edits there"
        return
    if math.isfinite(site.sink_norm):
        yield "the intervention leaves attention sinks alone, and a bias does not"
    if any(term.encoder.any() for term in site.terms):
        yield "the intervention's edits depend on the token, and a bias does not"
        return
    if bias.tensor not in stored:
        yield "missing"
        return
    dtype = claim.dtype
    assert dtype is not None
    wanted = OutputBias.of(site, dtype, claim.architecture.branch_multiplier).bias
    with safe_open(stored[bias.tensor].path, framework="pt") as file:
        found = file.get_tensor(bias.tensor)
    if found.dtype != dtype or not torch.equal(found, wanted):
        yield "it is not the constant that the intervention adds"
