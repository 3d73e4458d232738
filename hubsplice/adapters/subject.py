"""An adapter on its carrier, as measurements take it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from hubsplice.adapters.attached import attached
from hubsplice.adapters.carrier import Carrier
from hubsplice.adapters.opened import OpenAdapter
from hubsplice.checkpoint.layer_map import inserted_indices
from hubsplice.constructions.slots import Factors
from hubsplice.fidelity.inserted import InsertedAt
from hubsplice.fidelity.measure import Subject
from hubsplice.intervention.intervention import Intervention
from hubsplice.streams.model import Model


def subject(
    carrier: Carrier,
    changes: Mapping[int, Mapping[str, Factors]],
    constants: Mapping[int, Mapping[str, Any]],
    base: Path,
    intervention: Intervention,
    dtype: torch.dtype,
    approximations: tuple[str, ...],
) -> Subject:
    """The carrier with the adapter on it, not merged, as engines serve it.

    Args:
        carrier: the carrier.
        changes: what the adapter changes, by the carrier's inserted layer and by role.
        constants: what the adapter's manifest records of a layer, by that layer.
        base: the base's folder.
        intervention: the edit.
        dtype: the serving precision.
        approximations: what the edit does not reproduce of its source features.
    """

    def on(model: Model) -> AbstractContextManager[None]:
        return attached(model, carrier, changes)

    return Subject(
        base,
        carrier.folder,
        intervention,
        _inserted(carrier, constants),
        dtype,
        approximations,
        adapted=on,
    )


def adapter_subject(
    adapter: OpenAdapter,
    base: Path,
    intervention: Intervention,
    dtype: torch.dtype,
    approximations: tuple[str, ...],
) -> Subject:
    """The same of an adapter that was read back."""
    constants = {splice: adapter.manifest.layers[splice].constants for splice in adapter.layers}
    return subject(
        adapter.carrier, adapter.changes, constants, base, intervention, dtype, approximations
    )


def _inserted(
    carrier: Carrier, constants: Mapping[int, Mapping[str, Any]]
) -> tuple[InsertedAt, ...]:
    """The edited layers, with the slots that tell on which side of a jump a token is."""
    indices = inserted_indices(carrier.layers)
    return tuple(
        InsertedAt(
            indices[splice],
            tuple(
                (int(term), int(chosen["slots"][neuron]), int(side))
                for term, neuron, side in chosen["jump_gates"]
            ),
            float(chosen.get("saturation", 0.0)),
            carrier.architecture.family.becomes.block.gate_module,
        )
        for splice, chosen in sorted(constants.items())
    )
