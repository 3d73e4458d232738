"""A carrier: a base with inserted layers that add nothing, and hold slots for adapters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from hubsplice.adapters.quiet_channels import quiet_channels
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.companions import CONFIG, MANIFEST
from hubsplice.checkpoint.fingerprint import carrier_fingerprint, recorded_slots
from hubsplice.checkpoint.layer_map import LayerMap, inserted_places
from hubsplice.checkpoint.layout import NewTensor
from hubsplice.checkpoint.manifest import CARRIER, Manifest, SlotsRecord, read_manifest
from hubsplice.checkpoint.original_config import original_config
from hubsplice.checkpoint.padded import Padded
from hubsplice.compiling.construct import FORMS, empty_layer, held_norms
from hubsplice.compiling.linker import Linker
from hubsplice.constructions.held_norms import SILENT_CHANNELS, HeldNorms
from hubsplice.constructions.sandwich_layer import SandwichLayer
from hubsplice.constructions.slots import (
    Factors,
    Slots,
    SlottedLayer,
    of_one_rank,
    square_rows,
)
from hubsplice.errors import CheckpointError, UnsupportedError
from hubsplice.families.architecture import Architecture, Held, architecture_of
from hubsplice.families.blocks import Construction
from hubsplice.families.tensors import ATTENTION_OUTPUT, GATED_MLP
from hubsplice.files.plain import read_plain
from hubsplice.files.strict_json import parse_object
from hubsplice.intervention.place import Block, Place

VALUES = "self_attn.v_proj"
"""The map whose bias gives attention the 1 that its output projection can make a constant of."""

MODULES = {
    "attention": ATTENTION_OUTPUT,
    **dict(zip(("gate", "up", "down"), (linear.name for linear in GATED_MLP), strict=True)),
}
"""The linear maps of an inserted layer that adapters change, by role."""


def require_slots(architecture: Architecture) -> None:
    """Refuse a family whose layers can't hold slots.

    Raises:
        UnsupportedError: with the reason.
    """
    block = architecture.family.becomes.block
    experts = architecture.family.dense_layers is not None
    if block.construction is not Construction.LAYERNORM and not experts:
        return
    name = architecture.family.becomes.name
    reasons = {
        Construction.BIAS_FREE: "it is a mixture of experts, and no engine was found to confine "
        "LoRA to its inserted layer",
        Construction.LAYERNORM: "its MLP is not gated, and no slots were worked out for it",
    }
    raise UnsupportedError(
        f"{name} can't be a carrier: {reasons[block.construction]}; build a merged checkpoint "
        "instead"
    )


def carrier_tensors(
    linker: Linker, slots: Slots, zero_biases: dict[str, NewTensor], dtype: torch.dtype
) -> dict[str, NewTensor]:
    """Every tensor of a carrier that is not the base's, by name.

    Args:
        linker: what the carrier is made of.
        slots: of each inserted layer.
        zero_biases: those of the base's own layers.
        dtype: of the inserted layers' tensors.
    """
    tensors = dict(zero_biases)
    for splice in range(len(inserted_places(linker.layers))):
        tensors |= linker.inserted_tensors(splice, empty_layer(linker.architecture, dtype), dtype)
        tensors |= slot_tensors(linker, splice, slots, dtype)
    return tensors


def slot_tensors(
    linker: Linker, splice: int, slots: Slots, dtype: torch.dtype
) -> dict[str, Padded]:
    """The tensors of an empty layer that are not zero, by name.

    Args:
        linker: what the carrier is made of.
        splice: which inserted layer it is.
        slots: its.
        dtype: of the tensors; every bias is exact in it.
    """
    names, layout = linker.filled_names(splice), linker.inserted_layout(splice)
    kind = linker.architecture.family.becomes.block.construction
    filled = {f"{prefix_of(linker, splice)}{VALUES}.bias": torch.ones(1)}
    if slots.silent:
        norms = HeldNorms.of(slots.silent, linker.architecture.hidden_size, FORMS[kind], dtype)
        filled |= {names["attention_norm"]: norms.attention, names["output_norm"]: norms.output}
    elif slots.squares:
        rows = square_rows(linker.architecture.hidden_size, dtype)
        filled |= {names["gate_weight"]: rows, names["up_weight"]: rows}
    else:
        gate, up = slots.biases()
        filled |= {names["gate_bias"]: gate, names["up_bias"]: up}
    return {name: Padded(b.to(dtype), layout[name].shape) for name, b in filled.items()}


def prefix_of(linker: Linker, splice: int) -> str:
    """What stands before the names of an inserted layer's parts."""
    name, _, _ = linker.filled_names(splice)["gate_weight"].partition(GATED_MLP[0].name)
    return name


def empty_slots(base: BaseCheckpoint, architecture: Architecture, total: int | None) -> Slots:
    """The slots of each inserted layer of a carrier.

    Args:
        base: its base.
        architecture: what that is.
        total: how many there are for edits; None for as many as common recipes need.

    Raises:
        UnsupportedError: a layer has too few neurons for any.
    """
    room = architecture.intermediate_size
    construction = architecture.family.becomes.block.construction
    if construction in FORMS:
        slots = Slots.behind_norms(quiet_channels(base, architecture), room, total)
        needed = slots.plain > 0
    elif construction is Construction.BIAS_FREE:
        slots = Slots.bias_free(architecture.hidden_size, room, total)
        needed = slots.plain > 0
    else:
        slots = Slots.fitting(room, total)
        needed = all(slots.counts[kind] for kind in ("above", "below", "bends", "lines"))
    if not needed:
        raise UnsupportedError(f"a layer of this model has {room} neurons, too few for slots")
    return slots


def slots_of(manifest: Manifest, architecture: Architecture) -> Slots:
    """The slots of a carrier.

    Raises:
        CheckpointError: the manifest is of no carrier, or of one of another family or size.
    """
    slots = Slots(**recorded_slots(manifest).model_dump())
    width = architecture.hidden_size
    construction = architecture.family.becomes.block.construction
    behind = construction in FORMS
    bias_free = construction is Construction.BIAS_FREE
    if (
        slots.squares != (2 * width if bias_free else 0)
        or slots.of_bias_free != (bias_free or behind)
        or len({*slots.silent}) != (SILENT_CHANNELS if behind else 0)
        or any(channel >= width for channel in slots.silent)
    ):
        raise CheckpointError(f"{MANIFEST}: slots: they are not of kinds that this family has")
    if slots.total > architecture.intermediate_size:
        raise CheckpointError(f"slots: found {slots.total}, and a layer has fewer neurons")
    return slots


def slots_record(slots: Slots) -> SlotsRecord:
    """Slots as a manifest has them."""
    return SlotsRecord(**slots.counts, silent=slots.silent)


@dataclass(frozen=True, eq=False)
class Carrier:
    """A carrier's folder, opened.

    Attributes:
        folder: where it is.
        manifest: its.
        architecture: what its base is.
        repo_id: the Hub repository; None for a local folder.
        commit: the full commit hash there.
    """

    folder: Path
    manifest: Manifest
    architecture: Architecture
    repo_id: str | None = None
    commit: str | None = None

    @staticmethod
    def open(folder: Path, repo_id: str | None = None, commit: str | None = None) -> Carrier:
        """Read what a carrier says of itself, and no weights.

        Raises:
            CheckpointError: it is no carrier, or its files are damaged.
        """
        manifest = read_manifest(folder / MANIFEST)
        recorded_slots(manifest)
        config = original_config(
            parse_object(read_plain(folder / CONFIG), source=CONFIG), manifest.config_changes
        )
        architecture = architecture_of(config)
        require_slots(architecture)
        slots = slots_of(manifest, architecture)
        if slots.silent:
            architecture = replace(architecture, held=Held(slots.silent, slots.plain))
        return Carrier(folder, manifest, architecture, repo_id, commit)

    @property
    def name(self) -> str:
        """The Hub model id, or the bare name of the folder."""
        return self.repo_id or self.folder.resolve().name

    @property
    def slots(self) -> Slots:
        """Those of each inserted layer."""
        return slots_of(self.manifest, self.architecture)

    def norms(self, dtype: torch.dtype) -> SandwichLayer | None:
        """An inserted layer's norms, in a layer of no neurons; None where edits need none."""
        held = held_norms(self.architecture, dtype)
        if held is None:
            return None
        form = FORMS[self.architecture.family.becomes.block.construction]
        return SandwichLayer.empty(self.architecture.hidden_size, dtype, form, held)

    @property
    def fingerprint(self) -> str:
        """What adapters know it by."""
        return carrier_fingerprint(self.manifest)

    def factors(self, layers: Mapping[int, SlottedLayer]) -> dict[int, dict[str, Factors]]:
        """What an adapter changes to have layers in the slots, by role; all of one rank.

        Args:
            layers: by inserted layer; those that the adapter leaves empty are left out.
        """
        slots, room = self.slots, self.architecture.intermediate_size
        width = self.architecture.projections[ATTENTION_OUTPUT].inputs
        return of_one_rank(
            {splice: layer.factors(slots, room, width) for splice, layer in layers.items()}
        )

    @property
    def layers(self) -> LayerMap:
        """Where its layers come from."""
        return self.manifest.layer_map

    @property
    def places(self) -> tuple[Place, ...]:
        """Where its inserted layers are, in order."""
        return inserted_places(self.layers)

    @cached_property
    def linker(self) -> Linker:
        """What it is made of."""
        return Linker(self.architecture, self.layers)

    def modules(self, splice: int) -> dict[str, str]:
        """The full names of the linear maps that adapters change in an inserted layer, by role."""
        prefix = prefix_of(self.linker, splice)
        return {role: prefix + module for role, module in MODULES.items()}


def carrier_problems(manifest: Manifest) -> Iterator[str]:
    """What a carrier's manifest says of its layers that is none of a carrier's."""
    for i, layer in enumerate(manifest.layers):
        if layer.construction != CARRIER or layer.terms or layer.block is not Block.MLP:
            yield f"layers[{i}]: expected an empty layer of a carrier"
