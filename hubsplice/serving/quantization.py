"""How every way of quantising a model is told to leave the inserted layers alone.

What is written here was read in vLLM 0.32, transformers 5.23 and compressed-tensors 0.20. Their
rules for matching names differ: as a whole, as the beginning, as any part of a module's name, as a
regular expression, as a shell pattern. Each list here means the same modules under its own rule,
and no list of layers means another layer too, as `layers.1` means `layers.10` where parts match.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.errors import UnsupportedError
from hubsplice.families.family import ModelClass
from hubsplice.families.registry import model_classes
from hubsplice.serving.requirements import edited_layers


class QuantizationFormat(enum.StrEnum):
    """What can quantise a spliced model, or a checkpoint made of one."""

    VLLM_ONLINE = "vllm-online"
    COMPRESSED_TENSORS = "compressed-tensors"
    FP8 = "fp8"
    AWQ = "awq"
    GPTQ = "gptq"
    TORCHAO = "torchao"
    BITSANDBYTES = "bitsandbytes"


_WHERE = {
    QuantizationFormat.VLLM_ONLINE: ("--quantization-config", "ignore"),
    QuantizationFormat.COMPRESSED_TENSORS: ("quantization_config", "ignore"),
    QuantizationFormat.FP8: ("quantization_config", "modules_to_not_convert"),
    QuantizationFormat.AWQ: ("quantization_config", "modules_to_not_convert"),
    QuantizationFormat.GPTQ: ("quantization_config", "dynamic"),
    QuantizationFormat.TORCHAO: ("quantization_config", "modules_to_not_convert"),
    QuantizationFormat.BITSANDBYTES: ("quantization_config", "llm_int8_skip_modules"),
}


@dataclass(frozen=True)
class Exclusions:
    """What leaves the inserted layers as they are.

    Attributes:
        format: whose it is.
        place: the option of the command line, or the key of config.json, that it belongs to.
        field: the field there.
        value: what the field holds.
    """

    format: QuantizationFormat
    place: str
    field: str
    value: list[str] | dict[str, JsonValue]

    def as_config(self) -> dict[str, Any]:
        """The field with its value."""
        return {self.field: self.value}


def inserted_modules(manifest: Manifest) -> tuple[str, ...]:
    """The linear maps of the inserted layers, by their full names in the checkpoint.

    Raises:
        UnsupportedError: the checkpoint is of a class whose modules hubsplice does not know.
    """
    return _modules(_class_of(manifest), edited_layers(manifest))


def exclusions(manifest: Manifest, format: QuantizationFormat) -> Exclusions:  # noqa: A002
    """What keeps the inserted layers of a checkpoint in the precision that they were compiled for.

    Raises:
        UnsupportedError: the checkpoint is of a class whose modules hubsplice does not know.
    """
    return excluding(_class_of(manifest), edited_layers(manifest), format)


def excluding(
    model_class: ModelClass,
    layers: Sequence[int],
    format: QuantizationFormat,  # noqa: A002
) -> Exclusions:
    """What keeps these layers of a model out of a quantisation."""
    modules = list(_modules(model_class, layers))
    value: list[str] | dict[str, JsonValue] = modules
    if format is QuantizationFormat.VLLM_ONLINE:
        # A shell pattern, which must match the whole name; vLLM has fused some of the modules.
        prefix = model_class.vllm_prefix or model_class.prefix
        value = [f"{prefix}{layer}.*" for layer in layers]
    elif format is QuantizationFormat.GPTQ:
        # A minus excludes; the expression must match from the beginning of the name.
        value = {rf"-:{re.escape(model_class.prefix)}{layer}\..*": {} for layer in layers}
    elif format is QuantizationFormat.BITSANDBYTES:
        # A list of one's own takes the place of transformers' default, which is the output head.
        value = [*modules, "lm_head"]
    return Exclusions(format, *_WHERE[format], value)


def _modules(model_class: ModelClass, layers: Sequence[int]) -> tuple[str, ...]:
    return tuple(
        f"{model_class.prefix}{layer}.{projection}"
        for layer in layers
        for projection in model_class.projections
    )


def _class_of(manifest: Manifest) -> ModelClass:
    name, known = manifest.architectures.after, model_classes()
    if name not in known:
        raise UnsupportedError(
            f"architectures: {name!r} is no class whose modules are known, so that inserted layers "
            f"could be kept out of a quantisation; known: {', '.join(sorted(known))}"
        )
    return known[name]
