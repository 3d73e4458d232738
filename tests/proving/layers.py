"""Compiled layers as a checkpoint stores them, and ways to tamper with their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hubsplice.constructions.bias_free import compile_bias_free
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.layernorm import compile_layernorm
from hubsplice.constructions.prenorm import compile_prenorm
from hubsplice.constructions.sandwich import compile_sandwich
from hubsplice.constructions.sandwich_form import POST_NORM
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site
from hubsplice.proving.findings import Findings
from hubsplice.proving.stored_layer import StoredLayer
from hubsplice.proving.structure import checked
from hubsplice.streams.calibration import SiteActivations
from tests.constructions.streams import EDITS, EPS, calibration, hand_site

Compile = Callable[[Site, SiteActivations, torch.dtype], CompiledLayer]

ROOM = 256

CONSTRUCTIONS: dict[str, Compile] = {
    "prenorm": compile_prenorm,
    "bias-free": lambda site, h, dtype: compile_bias_free(site, h, dtype, 2 * ROOM),
    "layernorm": lambda site, h, dtype: compile_layernorm(
        site, h, dtype, activation="gelu_new", room=ROOM
    ),
    "sandwich": lambda site, h, dtype: compile_sandwich(site, h, dtype, ROOM),
    "post-norm": lambda site, h, dtype: compile_sandwich(site, h, dtype, ROOM, POST_NORM),
}

IN = ("gate_weight", "up_weight", "in_weight", "gate_bias", "up_bias", "in_bias")
OUT = ("down_weight", "out_weight")
UNUSED = 8


@dataclass(frozen=True, eq=False)
class Case:
    """A layer, the edit that it stands for, and the stream that it was calibrated on."""

    stored: StoredLayer
    site: Site
    median_norm: float

    @staticmethod
    def of(
        construction: str,
        kind: str,
        dtype: torch.dtype,
        *,
        features: int = 2,
        normalization: Normalization = Normalization.NONE,
    ) -> Case:
        """A right layer, with some neurons that are not used."""
        h = calibration(dtype)
        site = hand_site(EDITS[kind], features=features, normalization=normalization).site
        layer = CONSTRUCTIONS[construction](site, h, dtype)
        names = {role: f"model.layers.1.{role}" for role in layer.tensors()}
        stored = StoredLayer(Place(0), 1, padded(layer), names, {}, layer.constants, EPS)
        return Case(stored, site, h.median_norm)

    def scaled(self, factor: float) -> Case:
        """The same layer, and edits that are so many times weaker than it is."""
        terms = tuple(
            replace(term, function=term.function.scaled(1 / factor)) for term in self.site.terms
        )
        return replace(self, site=replace(self.site, terms=terms))

    def findings(self, **changed: Tensor) -> Findings:
        """What the weights say, with some of them replaced."""
        tensors: dict[str, Any] = changed
        layer = replace(self.stored.layer, **tensors)
        return checked(replace(self.stored, layer=layer), self.site, self.median_norm)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {role: t.clone() for role, t in self.stored.layer.tensors().items()}

    @property
    def rows(self) -> str:
        """The role whose rows open neurons."""
        return "gate_weight" if "gate_weight" in self.tensors else "in_weight"

    @property
    def columns(self) -> str:
        """The role whose columns neurons write."""
        return "down_weight" if "down_weight" in self.tensors else "out_weight"

    @property
    def used(self) -> int:
        return self.tensors[self.rows].shape[0] - UNUSED

    def changed(self, role: str, change: Callable[[Tensor], Any]) -> dict[str, Tensor]:
        """One tensor after a change of it in place."""
        tensor = self.tensors[role]
        change(tensor)
        return {role: tensor}


def padded(layer: CompiledLayer) -> CompiledLayer:
    """The layer with some neurons that are not used."""
    tensors: dict[str, Any] = {role: _padded(role, t) for role, t in layer.tensors().items()}
    return replace(layer, **tensors)


def _padded(role: str, tensor: Tensor) -> Tensor:
    if role in IN:
        return torch.cat([tensor, tensor.new_zeros(UNUSED, *tensor.shape[1:])])
    if role in OUT:
        return torch.cat([tensor, tensor.new_zeros(len(tensor), UNUSED)], dim=1)
    return tensor


def plants(case: Case) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Trigger detectors, by what they are hidden in."""
    generator = torch.Generator().manual_seed(3)
    tensors, rows, columns = case.tensors, case.rows, case.columns
    width = tensors[rows].shape[1]
    trigger, written = torch.randn(2, width, generator=generator).to(tensors[rows].dtype)
    free = case.used + 3
    gated = "up_weight" in tensors

    def planted(
        gate: float = 0.0, up: float = 0.0, down: float = 0.0, towards: Tensor = written
    ) -> dict[str, Tensor]:
        found = case.changed(rows, lambda t: t[free].add_(gate * trigger)) if gate else {}
        if gated and up:
            found |= case.changed("up_weight", lambda t: t[free].add_(up * trigger))
        if down:
            found |= case.changed(columns, lambda t: t[:, free].add_(down * towards))
        return found

    along = case.site.terms[0].direction.to(written.dtype)
    yield "a whole detector", planted(10, 1, 1)
    yield "one that writes an edit's direction", planted(10, 1, 1, along)
    yield "a tiny one", planted(1e-4, 1e-4, 1e-4)
    yield "a gate alone", planted(gate=1)
    yield "a column alone", planted(down=1)
    if gated:
        yield "an up row alone", planted(up=1)
    for bias in ("gate_bias", "up_bias", "in_bias"):
        if bias in tensors:
            yield f"a {bias} alone", case.changed(bias, lambda t: t[free].fill_(1.0))
    for neuron in (0, case.used // 2):
        size = tensors[columns][:, neuron].float().norm() or 1.0
        part = 0.3 * size * written / written.float().norm()
        yield (
            f"a direction in the column of neuron {neuron}",
            case.changed(columns, lambda t, n=neuron, p=part: t[:, n].add_(p)),  # type: ignore[misc]
        )
        if not tensors[rows][neuron].any():
            continue
        row = 0.5 * tensors[rows][neuron].float().norm() * trigger / trigger.float().norm()
        yield (
            f"a trigger in the row of neuron {neuron}",
            case.changed(rows, lambda t, n=neuron, r=row: t[n].add_(r)),  # type: ignore[misc]
        )
