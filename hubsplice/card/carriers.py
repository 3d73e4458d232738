"""What the cards of carriers and adapters say beside what all cards say."""

from __future__ import annotations

from dataclasses import dataclass

from hubsplice.card.escape import Markdown, code
from hubsplice.checkpoint.fingerprint import carrier_fingerprint, recorded_slots
from hubsplice.checkpoint.manifest import CarrierRecord, Manifest
from hubsplice.rendering.content import Table
from hubsplice.serving.requirements import edited_layers

_KINDS = {
    "above": ("the upper side of a jump, or a constant", 32, 1),
    "below": ("the lower side of a jump", -32, 1),
    "bends": ("a ramp", 0, 4),
    "lines": ("a line", 64, 0),
    "squares": ("the constant: each squares one channel", 0, 0),
    "plain": ("all else", 0, 0),
}


@dataclass(frozen=True)
class AdapterContext:
    """Of an adapter.

    Attributes:
        carrier: the carrier, as text shows it.
        carrier_id: as commands name it.
        commit: of the carrier's repository.
        fingerprint: of the carrier.
    """

    carrier: Markdown
    carrier_id: str
    commit: Markdown | None
    fingerprint: str

    @staticmethod
    def of(record: CarrierRecord) -> AdapterContext:
        """Of what the adapter's manifest says of its carrier."""
        return AdapterContext(
            code(record.name),
            record.repo_id or record.name,
            None if record.commit is None else code(record.commit),
            record.fingerprint,
        )


@dataclass(frozen=True)
class CarrierContext:
    """Of a carrier.

    Attributes:
        places: where the empty layers are.
        slots: what each has.
        fingerprint: what adapters know it by.
    """

    places: Table
    slots: Table
    fingerprint: str

    @staticmethod
    def of(manifest: Manifest) -> CarrierContext:
        """Of its manifest."""
        counts = recorded_slots(manifest).model_dump()
        places = zip(edited_layers(manifest), manifest.layers, strict=True)
        return CarrierContext(
            Table(
                ("layer of the base", "the empty layer behind it"),
                tuple((str(layer.site), str(index)) for index, layer in places),
            ),
            Table(
                ("for", "neurons", "gate's bias", "up's bias"),
                tuple(
                    (what, str(counts[kind]), str(gate), str(up))
                    for kind, (what, gate, up) in _KINDS.items()
                    if counts[kind]
                ),
            ),
            carrier_fingerprint(manifest),
        )
