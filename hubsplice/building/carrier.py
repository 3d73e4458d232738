"""From a base to a carrier: empty layers are inserted, and nothing of the base changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hubsplice import __version__
from hubsplice.adapters.carrier import (
    carrier_tensors,
    empty_slots,
    require_slots,
    slots_record,
)
from hubsplice.building.record import base_record, versions
from hubsplice.card import write_card
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.fingerprint import carrier_fingerprint
from hubsplice.checkpoint.layout import Zeros
from hubsplice.checkpoint.manifest import (
    CARRIER,
    SCHEMA_VERSION,
    Architectures,
    InsertedLayer,
    Manifest,
    write_manifest,
)
from hubsplice.checkpoint.resolve import resolve_base
from hubsplice.checkpoint.stock import require_stock
from hubsplice.checkpoint.writer import write_checkpoint
from hubsplice.compiling.linker import Linker
from hubsplice.compiling.precision import stored_precision
from hubsplice.constructions.slots import Slots
from hubsplice.families.architecture import architecture_of
from hubsplice.files.staging import staged_directory
from hubsplice.intervention.place import Place
from hubsplice.rendering.content import Line, Part, Tone
from hubsplice.rendering.rendered import Rendered
from hubsplice.terminal import Progress


@dataclass(frozen=True, repr=False)
class CarrierResult(Rendered):
    """A carrier that was written.

    Attributes:
        folder: where it is.
        manifest: its.
        fingerprint: what adapters know it by.
        slots: of each inserted layer.
    """

    folder: Path
    manifest: Manifest
    fingerprint: str
    slots: Slots

    def content(self) -> Iterable[Part]:
        """What it is, what fits into it, and what comes next."""
        layers = ", ".join(str(layer.site) for layer in self.manifest.layers)
        yield Line(
            f"A carrier of {self.manifest.base.name}, with an empty layer after {layers}",
            Tone.GOOD,
        )
        yield Line(f"Room in each for {_room(self.slots)}")
        yield Line(f"Fingerprint: {self.fingerprint}", Tone.FAINT)
        yield Line(f"The carrier is in {self.folder}")
        yield Line(
            f"Next: hubsplice build RECIPE --adapter --carrier {self.folder} --output DIR",
            Tone.FAINT,
        )


def _room(slots: Slots) -> str:
    """How much fits into slots, and how much edits take of them."""
    counts = slots.counts
    if slots.squares:
        return (
            f"{counts['plain']} neurons: an ablation or a cap takes one or two, a clamp where "
            "active or a gated steer 65 in bfloat16, and attention sinks up to eight."
        )
    if slots.silent:
        return (
            f"{counts['plain']} neurons: four are the same for all edits; every line, ramp and "
            "jump has copies as far as there is room."
        )
    return (
        f"{counts['bends']} ramps, {counts['below']} jumps and {counts['lines']} lines: an "
        "ablation or a cap takes a line or a ramp or two, a clamp where active or a gated steer a "
        "jump or more, and attention sinks up to eight jumps."
    )


def build_carrier(
    base_model: str,
    revision: str | None,
    after_layers: Sequence[int],
    *,
    output: Path,
    total_slots: int | None,
    hard_link: bool,
    progress: Progress,
) -> CarrierResult:
    """Write a carrier into a new folder, which appears whole or not at all.

    Args:
        base_model: a folder or a Hub repository.
        revision: of the repository.
        after_layers: the base's layers behind each of which an empty one is inserted.
        output: the folder; missing or empty.
        total_slots: how many slots each layer has; None for as many as common recipes need.
        hard_link: link unchanged shards rather than copy them.
        progress: told of every step.

    Raises:
        UnsupportedError: the family can't have slots, or its layers have no room for any.
        HubspliceError: the base can't be spliced; nothing is left behind.
    """
    resolved = resolve_base(base_model, revision, weights=True)
    base = BaseCheckpoint.open(resolved.folder)
    architecture = architecture_of(base.config)
    architecture.validate()
    require_slots(architecture)
    require_stock(base)
    places = [Place(layer) for layer in sorted(set(after_layers))]
    linker = Linker(architecture, architecture.layer_map(places))
    slots = empty_slots(base, architecture, total_slots)
    dtype = stored_precision(base)
    tensors = carrier_tensors(linker, slots, dict(linker.bias_tensors(base.tensors)), dtype)
    config = linker.config(dtype)
    with staged_directory(output) as folder:
        written = write_checkpoint(
            base,
            folder,
            rename=linker.rename,
            split=architecture.split,
            new_tensors=tensors,
            config=config,
            hard_link=hard_link,
            on_progress=lambda done, total: progress("writing", done, total),
        )
        family = architecture.family
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            hubsplice=__version__,
            base=base_record(resolved, base, base_model, written.base_files),
            architectures=Architectures(before=family.class_name, after=family.becomes.name),
            layer_map=linker.layers,
            config_changes=linker.config_changes(config),
            zero_tensors=tuple(sorted(n for n, t in tensors.items() if isinstance(t, Zeros))),
            layers=tuple(
                InsertedLayer(site=place.layer, construction=CARRIER, constants={}, terms=())
                for place in places
            ),
            slots=slots_record(slots),
            dtype=str(dtype).removeprefix("torch."),
            seeds={},
            versions=versions(),
            files=dict(written.files),
        )
        write_manifest(manifest, folder)
        write_card(folder, model_id=output.resolve().name)
    return CarrierResult(output, manifest, carrier_fingerprint(manifest), slots)
