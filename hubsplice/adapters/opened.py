"""An adapter that was built, read back: the layers that it puts into a carrier's slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from pydantic import JsonValue

from hubsplice.adapters.carrier import Carrier
from hubsplice.adapters.peft_files import read_adapter
from hubsplice.checkpoint.companions import ADAPTER_WEIGHTS, MANIFEST
from hubsplice.checkpoint.layout import NewTensor
from hubsplice.checkpoint.manifest import InsertedLayer, Manifest, read_manifest
from hubsplice.checkpoint.tensors import same_bits
from hubsplice.compiling.linker import Linker
from hubsplice.constructions.slots import Factors, SlottedLayer, recovered
from hubsplice.errors import CheckpointError, RecipeError
from hubsplice.files.plain import is_folder, not_a_folder

_ONLY_OF_ADAPTERS = ("slots", "constant_slot", "squares_at", "rounded_biases")


@dataclass(frozen=True, eq=False)
class OpenAdapter:
    """An adapter and its carrier.

    Attributes:
        folder: the adapter's.
        carrier: what it is for.
        manifest: the adapter's.
        changes: what it changes, by the carrier's inserted layer and by role.
        layers: the layers that this says, by the carrier's inserted layer.
    """

    folder: Path
    carrier: Carrier
    manifest: Manifest
    changes: Mapping[int, Mapping[str, Factors]]
    layers: Mapping[int, SlottedLayer]

    @staticmethod
    def open(folder: Path, carrier: Carrier) -> OpenAdapter:
        """Read an adapter.

        Raises:
            RecipeError: there is no such folder.
            CheckpointError: hubsplice built no adapter there, or one for another carrier.
        """
        if not is_folder(folder):
            raise RecipeError(f"{folder}: {not_a_folder(folder)}")
        manifest = read_manifest(folder / MANIFEST)
        if manifest.carrier is None:
            raise CheckpointError(
                f"{folder / MANIFEST}: it is of no adapter; `hubsplice build --adapter` makes one"
            )
        if manifest.carrier.fingerprint != carrier.fingerprint:
            raise CheckpointError(
                f"{folder}: it was built for another carrier than {carrier.name}, or for another "
                f"revision of it: {manifest.carrier.name}, with the fingerprint "
                f"{manifest.carrier.fingerprint}; expected {carrier.fingerprint}"
            )
        changes = read_adapter(carrier, folder)
        return OpenAdapter(
            folder, carrier, manifest, changes, dict(_layers(carrier, manifest, changes))
        )

    @property
    def used(self) -> list[int]:
        """Which of the carrier's inserted layers are edited."""
        return sorted(self.layers)

    @property
    def dtype(self) -> torch.dtype:
        """The precision that it was compiled for."""
        return self.layers[self.used[0]].layer.gate_weight.dtype

    @cached_property
    def merged(self) -> Linker:
        """What a checkpoint of carrier and adapter is made of: it has no empty layers."""
        architecture = self.carrier.architecture
        return Linker(
            architecture,
            architecture.layer_map([self.carrier.places[splice] for splice in self.used]),
        )

    def merged_manifest(self) -> Manifest:
        """What a direct build's manifest says of the layers; the rest is the adapter's."""
        kept = [self.manifest.layers[splice] for splice in self.used]
        return self.manifest.model_copy(
            update={
                "layer_map": self.merged.layers,
                "layers": tuple(map(_plain, kept)),
                "carrier": None,
            }
        )

    def merged_tensors(self) -> dict[str, NewTensor]:
        """The tensors of the inserted layers of that checkpoint, by name."""
        tensors: dict[str, NewTensor] = {}
        for index, splice in enumerate(self.used):
            layer = self.layers[splice].compiled
            tensors |= self.merged.inserted_tensors(index, layer, self.dtype)
        return tensors

    def problems(self) -> Iterator[str]:
        """What the adapter holds beside its layers in their slots; nothing for one that was built.

        The factors are made again of the layers that were read out of them, and have to be the
        same, bit for bit: nothing is hidden between them.
        """
        made = self.carrier.factors(self.layers)
        for splice, roles in self.changes.items():
            for role, found in roles.items():
                expected = made[splice][role]
                if not (same_bits(found.a, expected.a) and same_bits(found.b, expected.b)):
                    name = self.carrier.modules(splice)[role]
                    yield f"{ADAPTER_WEIGHTS}: {name}: it holds more than a layer in its slots"


def _plain(layer: InsertedLayer) -> InsertedLayer:
    kept = {k: v for k, v in layer.constants.items() if k not in _ONLY_OF_ADAPTERS}
    return layer.model_copy(update={"constants": kept})


def required_carrier(manifest: Manifest, carrier: Carrier | None) -> Carrier:
    """The carrier of an adapter, which has to be given.

    Raises:
        RecipeError: it is not.
    """
    assert manifest.carrier is not None
    if carrier is None:
        raise RecipeError(
            f"--carrier: the adapter is for {manifest.carrier.name}; give its folder or repository"
        )
    return carrier


def _layers(
    carrier: Carrier, manifest: Manifest, changes: Mapping[int, Mapping[str, Factors]]
) -> Iterator[tuple[int, SlottedLayer]]:
    if len(manifest.layers) != len(carrier.places):
        raise CheckpointError(
            f"{MANIFEST}: layers: found {len(manifest.layers)}, expected {len(carrier.places)}, as "
            "the carrier has"
        )
    for splice, record in enumerate(manifest.layers):
        slots = record.constants.get("slots")
        if (slots is not None) != (splice in changes):
            raise CheckpointError(
                f"{MANIFEST}: layers[{splice}]: it says nothing of what {ADAPTER_WEIGHTS} changes"
                if slots is None
                else f"{ADAPTER_WEIGHTS}: layer {record.place}: no changes, and {MANIFEST} has them"
            )
        if slots is not None:
            roles = dict(changes[splice])
            dtype = next(iter(roles.values())).a.dtype
            try:
                layer = recovered(
                    roles,
                    carrier.slots,
                    _numbers(slots),
                    _number(record.constants.get("constant_slot")),
                    _number(record.constants.get("squares_at")),
                    carrier.norms(dtype),
                )
            except (IndexError, RuntimeError) as error:
                raise CheckpointError(f"{ADAPTER_WEIGHTS}: wrong shapes: {error}") from None
            yield splice, layer


def _numbers(values: JsonValue) -> list[int]:
    if not isinstance(values, list) or not all(type(v) is int for v in values):
        raise CheckpointError(f"{MANIFEST}: slots: expected a list of numbers")
    return [v for v in values if isinstance(v, int)]


def _number(value: JsonValue) -> int | None:
    return None if value is None else _numbers([value])[0]
