"""Hook names: which place of a model an SAE was trained on, and the layer it belongs to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hubsplice.errors import UnsupportedError
from hubsplice.features.refusals import (
    ATTENTION_HEADS,
    ATTENTION_OUTPUT,
    EMBEDDINGS,
    MLP_OUTPUT,
)
from hubsplice.intervention.place import Block, Place

_TRANSFORMER_LENS = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<place>.+)")
_TRANSFORMERS = re.compile(r"(?:.+\.)?(?:layers|h|blocks)\.(?P<layer>\d+)(?:\.output)?")

# Each place under its names in TransformerLens 2 and 3, and how far it is from its layer's output.
_PLACES = {
    "hook_resid_pre": (-1, Block.MLP),
    "hook_in": (-1, Block.MLP),
    "ln1.hook_in": (-1, Block.MLP),
    "hook_resid_mid": (0, Block.ATTENTION),
    "ln2.hook_in": (0, Block.ATTENTION),
    "hook_resid_post": (0, Block.MLP),
    "hook_out": (0, Block.MLP),
}

_MLP_INPUT = "it reads the MLP's normalised input, inside a layer"
_INSIDE = "it is not a place in the residual stream"
# The first that a name ends with, or holds, says why.
_REFUSED = {
    "hook_attn_out": ATTENTION_OUTPUT,
    "attn.hook_out": ATTENTION_OUTPUT,
    "hook_mlp_out": MLP_OUTPUT,
    "mlp.hook_out": MLP_OUTPUT,
    "attn.hook_z": ATTENTION_HEADS,
    "hook_normalized": _MLP_INPUT,
    "mlp.hook_in": _MLP_INPUT,
    "hook_mlp_in": _MLP_INPUT,
}
_PARTS = re.compile(r"(?:^|\.)(?:mlp|attn|self_attn|attention|ln\d)(?:\.|$)")


@dataclass(frozen=True)
class HookPoint:
    """A place in a model.

    Attributes:
        name: as the SAE's configuration says.
        place: where the residual stream is that the SAE reads, or None where it reads another, or
            where the name is not known.
        refusal: why hubsplice cannot splice there, or None.
    """

    name: str
    place: Place | None
    refusal: str | None = None

    def require_supported(self) -> None:
        """Raise `UnsupportedError` with the reason where an edit cannot be spliced."""
        if self.refusal is not None:
            raise UnsupportedError(
                f"sae: trained on {self.name!r}: {self.refusal}; "
                "SAEs of the residual stream (resid_pre, resid_mid, resid_post) work"
            )


def parse_hook_name(name: str) -> HookPoint:
    """Read a hook name of TransformerLens (`blocks.13.hook_resid_post`) or transformers
    (`model.layers.13`, a layer's output)."""
    match = _TRANSFORMER_LENS.fullmatch(name)
    if match:
        layer, within = int(match["layer"]), match["place"]
        if within in _PLACES:
            offset, block = _PLACES[within]
            return HookPoint(name, Place(layer + offset, block))
    match = match or _TRANSFORMERS.fullmatch(name)
    if match and "place" not in match.groupdict():
        return HookPoint(name, Place(int(match["layer"])))
    for suffix, reason in _REFUSED.items():
        if name.endswith(suffix):
            return HookPoint(name, None, reason)
    if _PARTS.search(name):
        return HookPoint(name, None, _INSIDE)
    return HookPoint(name, None, EMBEDDINGS if "embed" in name else None)
