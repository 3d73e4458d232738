"""Which class a base is served as, where some engines ignore biases that the usual one needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.errors import UnsupportedError
from hubsplice.families.architecture import Architecture, architecture_of
from hubsplice.families.blocks import Construction
from hubsplice.families.engines import EXAMINED, EngineKey
from hubsplice.families.family import ModelClass
from hubsplice.families.registry import model_classes
from hubsplice.families.tensors import MLP


def architecture_for(config: Mapping[str, Any], engines: Sequence[EngineKey]) -> Architecture:
    """The architecture of a base whose splices all of some engines honour.

    Args:
        config: the base's config.json.
        engines: that are to serve the result; none for the usual architecture.

    Raises:
        UnsupportedError: no family of that `model_type`, or an engine ignores something, or was
            never examined.
    """
    usual = architecture_of(config)
    problems = list(_ignored(usual, engines))
    if not problems:
        return usual
    other = _without_mlp_biases(usual)
    if other is not None and not any(_ignored(other, engines)):
        return other
    others = [str(e.value) for e in engines if not any(_ignored(usual, [e]))]
    advice = f"; name only {', '.join(others)}" if others else ""
    raise UnsupportedError("\n".join(f"serve_with: {problem}{advice}" for problem in problems))


def built_architecture(manifest: Manifest, config: Mapping[str, Any]) -> Architecture:
    """The architecture that a checkpoint was built with, from its manifest and its base's config.

    Raises:
        UnsupportedError: no family of that `model_type`.
    """
    usual = architecture_of(config)
    other = _without_mlp_biases(usual) if _is_bias_free(manifest) else None
    return other or usual


def built_class(manifest: Manifest) -> ModelClass | None:
    """The class that a checkpoint is served as; None where it is not one that is known."""
    usual = model_classes().get(manifest.architectures.after)
    other = usual.without_mlp_biases if usual and _is_bias_free(manifest) else None
    return other or usual


def _is_bias_free(manifest: Manifest) -> bool:
    return any(layer.construction == Construction.BIAS_FREE for layer in manifest.layers)


def _without_mlp_biases(base: Architecture) -> Architecture | None:
    """The same base with splices whose MLP has no biases; None where there is no such way."""
    family = base.family
    other = family.becomes.without_mlp_biases
    if other is None or base.biased_before & {*MLP}:
        return None
    switches = family.becomes.switches if family.switches is None else family.switches
    return Architecture(replace(family, becomes=other, switches=switches), base.config)


def _ignored(base: Architecture, engines: Sequence[EngineKey]) -> Iterator[str]:
    """What each of the engines that does not honour all of a splice leaves out."""
    result = base.family.becomes
    parts = (part for part in result.block.roles.values() if part.endswith(".bias"))
    needed = base.biased_before.union(part.removesuffix(".bias") for part in parts)
    for engine in engines:
        examined, support = EXAMINED[engine], result.engines.get(engine)
        if support is None:
            yield f"{examined.name}: nobody has examined whether it honours a spliced {result.name}"
        elif ignored := sorted(needed & support.ignored_biases):
            biases = ", ".join(f"{name}.bias" for name in ignored)
            yield f"{examined.name} {examined.version} ignores {biases} of {result.name}"
