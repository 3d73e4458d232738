"""Splicing a folder with the pieces that a build is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from hubsplice.architectures.compiled_layer import CompiledLayer
from hubsplice.architectures.registry import architecture_of
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.layout import NewTensor
from hubsplice.checkpoint.staging import staged_directory
from hubsplice.checkpoint.writer import write_checkpoint

Splice = Callable[..., Path]


@pytest.fixture
def splice(tmp_path: Path) -> Splice:
    """A function that splices the checkpoint in a folder, and gives the result's folder.

    Its arguments are the base's folder, the layers to insert after, the inserted layers (empty
    ones by default), and the `name` of the result's folder.
    """

    def make(
        folder: Path,
        after_layers: Sequence[int],
        layers: Sequence[CompiledLayer] | None = None,
        *,
        name: str = "spliced",
    ) -> Path:
        base = BaseCheckpoint.open(folder)
        architecture = architecture_of(base.config)
        architecture.validate()
        stored = base.config.get("dtype", base.config.get("torch_dtype"))
        dtype = getattr(torch, stored)
        if layers is None:
            layers = [architecture.empty_layer(dtype)] * len(after_layers)
        new: dict[str, NewTensor] = {**architecture.bias_tensors(base.tensors, after_layers)}
        indices = architecture.inserted_indices(after_layers)
        for index, layer in zip(indices, layers, strict=True):
            new |= architecture.inserted_tensors(index, layer, dtype)
        with staged_directory(tmp_path / name) as staging:
            write_checkpoint(
                base,
                staging,
                rename=lambda tensor: architecture.rename(tensor, after_layers),
                new_tensors=new,
                config=architecture.spliced_config(after_layers, dtype),
            )
        return tmp_path / name

    return make
