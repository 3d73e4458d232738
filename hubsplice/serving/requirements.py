"""What a spliced model asks of whatever serves it, read from its manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from hubsplice.checkpoint.layer_map import inserted_indices
from hubsplice.checkpoint.manifest import Manifest
from hubsplice.families.family import BiasSwitch, ModelClass
from hubsplice.families.served import built_class


@dataclass(frozen=True)
class Requirements:
    """What a server must honour, beyond the weights of the class.

    Attributes:
        model_class: the class that config.json names.
        bias_fields: the fields of config.json that switch biases on.
        biases: the linear maps whose bias is not zero in every layer, by name in the layer; empty
            where the class is not one that hubsplice knows.
        layer_fields: the fields of config.json by which layers differ from each other.
    """

    model_class: str
    bias_fields: tuple[str, ...]
    biases: frozenset[str]
    layer_fields: frozenset[str]

    @staticmethod
    def of(manifest: Manifest) -> Requirements:
        """Those of a checkpoint."""
        name = manifest.architectures.after
        model_class = built_class(manifest)
        fields = frozenset(
            field for field, value in _changed(manifest) if _differs(value, manifest)
        )
        if model_class is None:
            switched = tuple(
                field
                for field, value in _changed(manifest)
                if field.endswith("_bias") and value is True
            )
            return Requirements(name, switched, frozenset(), fields)
        on = [s for s in model_class.switches if _is_on(s, model_class, manifest)]
        biased = {p for s in on for p in s.projections} | {*model_class.fixed_biases}
        zero = frozenset(manifest.zero_tensors)
        needed = frozenset(
            projection
            for projection in biased
            if not zero.issuperset(
                f"{model_class.prefix}{layer}.{projection}.bias"
                for layer in range(len(manifest.layer_map))
            )
        )
        return Requirements(name, tuple(s.field for s in on), needed, fields)


def edited_layers(manifest: Manifest) -> tuple[int, ...]:
    """The indices in the result of the layers that have the MLP of an inserted layer, in order."""
    return tuple(sorted(inserted_indices(manifest.layer_map)))


def _is_on(switch: BiasSwitch, model_class: ModelClass, manifest: Manifest) -> bool:
    changed = dict(_changed(manifest))
    if switch.field in changed:
        return changed[switch.field] is True
    # An inserted layer has zeros for every bias that it does not use.
    return switch.always or any(
        f"{model_class.prefix}{layer}.{projection}.bias" in manifest.zero_tensors
        for layer in edited_layers(manifest)
        for projection in switch.projections
    )


def _changed(manifest: Manifest) -> Iterator[tuple[str, JsonValue]]:
    """The fields that differ from the base's, those of a nested decoder among them."""
    for field, change in manifest.config_changes.items():
        if isinstance(change.after, dict):
            yield from change.after.items()
        else:
            yield field, change.after


def _differs(value: JsonValue, manifest: Manifest) -> bool:
    """Whether a field that goes by layers says that they differ."""
    if not isinstance(value, list) or not value:
        return False
    of_each_layer = len(value) == len(manifest.layer_map)
    return not of_each_layer or any(entry != value[0] for entry in value)
