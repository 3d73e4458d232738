"""The rows of a gated MLP's neurons, for the checks of constructions that have one."""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

from torch import Tensor

from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.proving.layer_check import LayerCheck

LayerT = TypeVar("LayerT", bound=CompiledLayer)


class GatedRowsCheck(LayerCheck[LayerT]):
    """A check of a layer with gates; what neurons in use hold is widened to float64."""

    first = "gate_weight"

    @cached_property
    def gate(self) -> Tensor:
        """What gates read, [neurons, d]."""
        return self.layer.tensors()["gate_weight"][: self.used].double()

    @cached_property
    def up(self) -> Tensor:
        """What they are multiplied by, [neurons, d]."""
        return self.layer.tensors()["up_weight"][: self.used].double()

    @cached_property
    def down(self) -> Tensor:
        """What every neuron writes, a row for each, [neurons, d]."""
        down = self.layer.tensors()["down_weight"][:, : self.used]
        return down.double().T.contiguous()
