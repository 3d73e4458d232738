"""Splicing a folder with the pieces that a build is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.layout import NewTensor
from hubsplice.checkpoint.writer import write_checkpoint
from hubsplice.compiling.construct import empty_layer
from hubsplice.compiling.linker import Linker
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.families.architecture import architecture_of
from hubsplice.files.staging import staged_directory
from hubsplice.intervention.place import Place

Splice = Callable[..., Path]


@pytest.fixture
def splice(tmp_path: Path) -> Splice:
    """A function that splices the checkpoint in a folder, and gives the result's folder.

    Its arguments are the base's folder, the places to insert at (a number is that after a layer),
    the inserted layers (empty ones by default), and the `name` of the result's folder.
    """

    def make(
        folder: Path,
        places: Sequence[Place | int],
        compiled: Sequence[CompiledLayer] | None = None,
        *,
        name: str = "spliced",
    ) -> Path:
        base = BaseCheckpoint.open(folder)
        architecture = architecture_of(base.config)
        architecture.validate()
        stored = base.config.get("dtype", base.config.get("torch_dtype"))
        dtype = getattr(torch, stored)
        if compiled is None:
            compiled = [empty_layer(architecture, dtype)] * len(places)
        layers = architecture.layer_map([p if isinstance(p, Place) else Place(p) for p in places])
        new: dict[str, NewTensor] = {**Linker(architecture, layers).bias_tensors(base.tensors)}
        for splice, layer in enumerate(compiled):
            new |= Linker(architecture, layers).inserted_tensors(splice, layer, dtype)
        with staged_directory(tmp_path / name) as staging:
            write_checkpoint(
                base,
                staging,
                rename=lambda tensor: Linker(architecture, layers).rename(tensor),
                split=architecture.split,
                new_tensors=new,
                config=Linker(architecture, layers).config(dtype),
            )
        return tmp_path / name

    return make
