"""Verifying an adapter: it is for its carrier, touches nothing but slots, and makes the edit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hubsplice.adapters.carrier import Carrier
from hubsplice.adapters.opened import OpenAdapter
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.companions import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from hubsplice.checkpoint.layout import NewTensor, Zeros
from hubsplice.checkpoint.manifest import Manifest
from hubsplice.checkpoint.padded import Padded
from hubsplice.errors import HubspliceError
from hubsplice.proving.stored_layer import ReadTensor
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.contents import Contents
from hubsplice.verifying.integrity import file_checks
from hubsplice.verifying.proof import NAMES as PROOF
from hubsplice.verifying.proof import strengths, structure
from hubsplice.verifying.reproduction import (
    intervention_problems,
    recipe_problems,
    report_problems,
)
from hubsplice.verifying.result import Check
from hubsplice.verifying.source import Published

_WEIGHTS = frozenset({ADAPTER_CONFIG, ADAPTER_WEIGHTS})
_DEPENDENT = ("slots", *PROOF, "intervention", "recipe", "report")


def adapter_checks(published: Published, manifest: Manifest, carrier: Carrier) -> tuple[Check, ...]:
    """Every check of an adapter; the carrier has checks of its own, which need the base.

    Args:
        published: the adapter.
        manifest: its.
        carrier: what it is for.
    """
    folder = published.folder
    checks = file_checks(
        folder,
        manifest.files,
        published.files,
        lambda _: None,
        made="an adapter",
        own=_WEIGHTS,
    )
    try:
        adapter = OpenAdapter.open(folder, carrier)
    except HubspliceError as error:
        return (
            *checks,
            Check.of("carrier", [str(error)], ""),
            *(Check.impossible(name, "it is no adapter for the carrier") for name in _DEPENDENT),
        )
    return (
        *checks,
        Check.of("carrier", [], "it is for this carrier, and changes its empty layers alone"),
        Check.of(
            "slots",
            list(adapter.problems()),
            "it holds nothing but layers in their slots: the same numbers come out again of them",
        ),
        *_edit_checks(adapter),
    )


def _edit_checks(adapter: OpenAdapter) -> tuple[Check, ...]:
    """The layers of a merged checkpoint, held against the intervention and the recipe."""
    contents, carrier = Contents(adapter.folder), adapter.carrier
    # What the checks look at of the base is what the carrier says of it.
    claim = Claim(
        adapter.merged_manifest(), BaseCheckpoint.open(carrier.folder), carrier.architecture
    )
    intervention, unreadable = contents.intervention
    problems = unreadable if intervention is None else intervention_problems(intervention, claim)
    if intervention is None or problems:
        proof = tuple(Check.impossible(n, "there is no such intervention") for n in PROOF)
    else:
        read = _reader(adapter.merged_tensors())
        proof = (
            structure(claim, adapter.dtype, intervention, read),
            strengths(claim, intervention),
        )
    return (
        *proof,
        Check.of("intervention", problems, "the manifest's edits, as data"),
        Check.of("recipe", recipe_problems(contents, claim), "it asks for the manifest's edits"),
        Check.of("report", report_problems(contents, claim), "the manifest's figures are from it"),
    )


def _reader(tensors: Mapping[str, NewTensor]) -> ReadTensor:
    def read(name: str) -> Tensor:
        tensor = tensors[name]
        if isinstance(tensor, Zeros):
            return torch.zeros(tensor.shape, dtype=tensor.dtype)
        if isinstance(tensor, Padded):
            return tensor.whole()
        return tensor

    return read
