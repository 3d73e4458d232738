"""What proves a carrier: its empty layers hold slots, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from safetensors import safe_open

from hubsplice.adapters.carrier import carrier_problems
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.result import Check
from hubsplice.verifying.weights import StoredTensor

SLOTS = "slots"


def slots_check(claim: Claim, stored: Mapping[str, StoredTensor]) -> Check:
    """Whether the biases of empty layers are those of the slots that the manifest lists.

    With the rest of the layers zero, they add nothing to the stream, whatever comes in.
    """
    problems = [*carrier_problems(claim.manifest), *_problems(claim, stored)]
    return Check.of(
        SLOTS,
        problems,
        "the empty layers hold slots and otherwise zeros: the logits are the base's, bit for bit",
    )


def _problems(claim: Claim, stored: Mapping[str, StoredTensor]) -> Iterator[str]:
    for name, slots in claim.slots.items():
        if name not in stored or stored[name].entry.shape != slots.shape:
            yield f"{name}: missing, or of another shape"
            continue
        with safe_open(stored[name].path, framework="pt") as file:
            found = file.get_tensor(name)
        expected = slots.whole()
        if found.dtype != expected.dtype or not torch.equal(found, expected):
            yield f"{name}: it is not that of the slots that the manifest lists"
