"""The layers that an adapter edits, as measurements look at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubsplice.adapters.carrier import Carrier
from hubsplice.checkpoint.layer_map import inserted_indices
from hubsplice.fidelity.inserted import InsertedAt


def in_slots(
    carrier: Carrier, constants: Mapping[int, Mapping[str, Any]]
) -> tuple[InsertedAt, ...]:
    """The layers that an adapter edits, with the slots that tell a jump's side.

    Args:
        carrier: the carrier.
        constants: what the adapter's manifest records of a layer, by the carrier's inserted layer.
    """
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
