"""The channels that a base's own layers write least to, which an edit needs least."""

from __future__ import annotations

import torch

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.compiling.construct import FORMS
from hubsplice.compiling.linker import Linker
from hubsplice.constructions.held_norms import SILENT_CHANNELS
from hubsplice.errors import UnsupportedError
from hubsplice.families.architecture import Architecture


def quiet_channels(base: BaseCheckpoint, architecture: Architecture) -> tuple[int, ...]:
    """Those that the norms of a carrier's empty layers silence, the quietest first.

    Where norms stand behind blocks, their weights say how much a block writes to a channel.

    Raises:
        UnsupportedError: the stream has too few channels.
    """
    width = architecture.hidden_size
    if width < 4 * SILENT_CHANNELS:
        raise UnsupportedError(f"the stream of this model has {width} channels, too few for slots")
    block = architecture.family.becomes.block
    form, part = FORMS[block.construction], block.roles["output_norm"].removesuffix(".weight")
    linker = Linker(architecture, architecture.layer_map([]))
    written = torch.zeros(width, dtype=torch.float64)
    for layer in range(architecture.num_layers):
        weight = base.load(linker.stored_name(base.tensors, f"{layer}.{part}") + ".weight")
        written += form.gain(weight).square()
    return tuple(written.argsort(stable=True)[:SILENT_CHANNELS].tolist())
