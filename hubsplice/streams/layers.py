"""A model's decoder layers, by whatever name its class calls them."""

from __future__ import annotations

from typing import Any

from torch import nn

Model = Any
"""A transformers causal language model; its classes share no useful static type."""


class StopEarly(Exception):  # noqa: N818
    """Everything that was asked for has been seen; the rest of the forward pass is not needed."""


def decoder_layers(model: Model) -> nn.ModuleList:
    """The decoder layers, in order."""
    decoder = model.get_decoder()
    layers: nn.ModuleList = decoder.h if hasattr(decoder, "h") else decoder.layers
    return layers
