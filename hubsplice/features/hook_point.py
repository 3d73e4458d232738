"""Hook names: which place of a model an SAE was trained on, and the layer it belongs to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hubsplice.errors import UnsupportedError
from hubsplice.features.refusals import ATTENTION_HEADS, EMBEDDINGS
from hubsplice.intervention.place import Block, Place

_TRANSFORMER_LENS = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<place>.+)")
_TRANSFORMERS = re.compile(r"(?:.+\.)?(?:layers|h|blocks)\.(?P<layer>\d+)(?:\.output)?")

_ELSEWHERE = "it is not a place in the residual stream"
_REFUSED = {
    "hook_attn_out": "it reads attention's output before it joins the residual stream, where no "
    "inserted layer can see it",
    "hook_mlp_out": "it reads the MLP's output before it joins the residual stream, where no "
    "inserted layer can see it",
    "attn.hook_z": ATTENTION_HEADS,
    "hook_normalized": "it reads the MLP's normalised input, inside a layer",
    "mlp.hook_in": "it reads the MLP's normalised input, inside a layer",
}


@dataclass(frozen=True)
class HookPoint:
    """A place in a model.

    Attributes:
        name: as the SAE's configuration says.
        place: where the residual stream is that the SAE reads, or None where it reads another.
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
        layer, place = int(match["layer"]), match["place"]
        if place == "hook_resid_post":
            return HookPoint(name, Place(layer))
        if place == "hook_resid_mid":
            return HookPoint(name, Place(layer, Block.ATTENTION))
        if place == "hook_resid_pre":
            return HookPoint(name, Place(layer - 1))
        for suffix, reason in _REFUSED.items():
            if place.endswith(suffix):
                return HookPoint(name, None, reason)
        return HookPoint(name, None, _ELSEWHERE)
    match = _TRANSFORMERS.fullmatch(name)
    if match:
        return HookPoint(name, Place(int(match["layer"])))
    if "embed" in name:
        return HookPoint(name, None, EMBEDDINGS)
    return HookPoint(name, None, _ELSEWHERE)
