"""The construction for blocks that normalise what they write, and have no MLP biases.

With h' = h + a for the constant a that attention adds, r = rms(h') and x = h'/r (or r = 1 and
x = h', in families that have no norm before the MLP), every neuron is a product of two linear
functions of x, and so of degree two in 1/r. The norm after the MLP divides by the dominant part of
what it gets, which is of degree two as well: r cancels. With a read-out v of a constant,
⟨v, h'⟩ ≈ 1, the neurons are, beside a common `up` of ⟨v, x⟩,

    constants, and the dominant part:   gate ±k·⟨v, x⟩
    relu(p - t):                        gate K·⟨e + (b - t - ⟨e, a⟩)·v, x⟩
    1[p > t]:                           two such gates, at ±c·⟨v, x⟩, subtracted
    p:                                  gate k·⟨v, x⟩, and `up` reads p instead.

c is so large that the activation is a ReLU there. On sinks one more neuron, silent elsewhere,
writes so much of the dominant part that nothing else is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from hubsplice.constructions.decomposition import Affine, Parts, decompose, directions, offsets
from hubsplice.constructions.held_norms import HeldNorms
from hubsplice.constructions.jump_ramps import ramp_widths
from hubsplice.constructions.neurons import Neurons
from hubsplice.constructions.ramp_width import RAMP_SIGMAS
from hubsplice.constructions.sandwich_form import SANDWICH, SandwichForm
from hubsplice.constructions.sandwich_frame import Frame, SandwichConstants, choose_frame
from hubsplice.constructions.sandwich_layer import SandwichLayer
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations

CONSTANTS = {
    torch.bfloat16: SandwichConstants(
        ramp_sigmas=RAMP_SIGMAS[torch.bfloat16], damping=1e-6, spread=0.0, longest=400.0
    ),
    torch.float32: SandwichConstants(
        ramp_sigmas=RAMP_SIGMAS[torch.float32], damping=1e-9, spread=1500.0, longest=1000.0
    ),
}

# A read-out of a constant is reported from this error on.
_REPORTED = 2e-2

_GUARD = 4096.0

# Fewer tokens beyond a jump than this say less of them than all tokens do.
_FEW_PASSED = 32


def compile_sandwich(
    site: Site,
    activations: SiteActivations,
    dtype: torch.dtype,
    room: int,
    form: SandwichForm = SANDWICH,
    constants: SandwichConstants | None = None,
    held: HeldNorms | None = None,
) -> SandwichLayer:
    """Compile a site's terms into one inserted layer.

    Args:
        site: what to compile; its `sink_norm` says which tokens must stay untouched.
        activations: calibration at this site, of tokens at which the two precisions agree.
        dtype: the serving precision, which the tensors are rounded to.
        room: how many neurons a layer has; jumps take what is left of them.
        form: how the family's block differs from others.
        constants: overrides `CONSTANTS[dtype]`.
        held: the norms, where the layer has some already.

    Raises:
        UnsupportedError: the edit is too large for norms that are held.
    """
    constants = constants or CONSTANTS[dtype]
    if not site.terms:
        return SandwichLayer.empty(activations.reference.shape[1], dtype, form, held)
    parts = decompose(site, activations)
    frame = choose_frame(site, parts, activations, dtype, form, constants, held)
    view = _View.of(site, activations, frame, constants)
    blocks = [
        _probes(parts.jumps, view),
        _constants(view),
        *(_scaled_constant(kind, vector, view) for kind, vector in parts.scaled_constants),
    ]
    if view.is_sink.any():
        blocks.append(_sink_guard(view))
    left = room - sum(block.neurons for block in blocks)
    needed = len(parts.linear) + len(parts.ramps) + 2 * len(parts.jumps)
    copies = min(constants.replicas, max(1, left // max(1, needed)))
    blocks += [
        _linear(parts.linear, view, copies),
        _ramps(parts.ramps, view, copies),
        _jumps(parts.jumps, view, copies),
    ]
    block = _Block.joined(blocks)
    return replace(
        view.frame.layer,
        gate_weight=block.gate.to(dtype),
        up_weight=block.up.to(dtype),
        down_weight=block.down.to(dtype).T.contiguous(),
        constants=asdict(constants)
        | {
            "construction": form.construction,
            "neurons": block.neurons,
            "half_gap": form.saturation,
            # A probe's gate is zero at the jump.
            "saturation": 0.0,
        },
        jump_gates=parts.jump_gates,
        homes=parts.homes,
        approximations=tuple(_inexact(site, parts, view)),
    )


@dataclass(frozen=True, eq=False)
class _View:
    """Calibration as the inserted MLP reads it.

    Attributes:
        activations: at the site.
        frame: the layer's norms and attention.
        constants: of the construction.
        x: what the MLP reads, shape [tokens, d], float64.
        r: what the norm before it divides by, in the reference, or one, shape [tokens].
        level: the median of r.
        is_sink: which tokens must stay untouched, shape [tokens].
        one: a row [d] with ⟨one, x⟩ ≈ level/r.
    """

    activations: SiteActivations
    frame: Frame
    constants: SandwichConstants
    x: Tensor
    r: Tensor
    level: float
    is_sink: Tensor
    one: Tensor

    @staticmethod
    def of(
        site: Site, activations: SiteActivations, frame: Frame, constants: SandwichConstants
    ) -> _View:
        shifted = activations.reference.double() + frame.added
        is_sink = site.is_sink(activations.reference)
        r = (shifted.pow(2).mean(dim=-1) + activations.eps).sqrt()
        if not frame.form.normalises_input:
            r = torch.ones_like(r)
        view = _View(
            activations,
            frame,
            constants,
            frame.layer.normalise(activations.serving, activations.eps).double(),
            r,
            float(r[~is_sink].median()),
            is_sink,
            torch.zeros_like(frame.added),
        )
        return replace(view, one=view.level * view.read_out(torch.ones_like(r)))

    @property
    def dtype(self) -> torch.dtype:
        return self.frame.dtype

    @property
    def unit(self) -> Tensor:
        """⟨one, x⟩, shape [tokens]."""
        return self.x @ self.one

    def read_out(self, target: Tensor) -> Tensor:
        """A row [d] with ⟨row, x⟩ ≈ target/r, as a share of it, where the token is no sink."""
        ordinary = ~self.is_sink
        regressors = (self.x * (self.r / target)[:, None])[ordinary]
        mean = regressors.mean(dim=0)
        covariance = torch.cov(regressors.T)
        covariance.diagonal().add_(self.constants.damping * covariance.diagonal().mean() + 1e-30)
        row = torch.linalg.solve(covariance, mean)
        return row / (mean @ row)

    def scale_of(self, normalization: Normalization) -> Tensor:
        """s(h) of every token, shape [tokens]."""
        return normalization.apply(self.activations.reference.double())[1][:, 0]

    def scale_row(self, normalization: Normalization) -> Tensor:
        """A row [d] with ⟨row, x⟩ ≈ level·s(h)/r."""
        if normalization is Normalization.NONE:
            return self.one
        return self.level * self.read_out(self.scale_of(normalization))

    def values(self, affines: list[Affine]) -> Tensor:
        """a(h) of every affine, from the reference stream, shape [tokens, n]."""
        encoders = torch.stack([a.encoder for a in affines], dim=1)
        values = self.activations.reference.double() @ encoders
        for kind in {a.normalization for a in affines}:
            values += self.scale_of(kind)[:, None] * offsets(affines, kind)
        return values

    def rows(self, affines: list[Affine]) -> Tensor:
        """Rows [n, d] with ⟨row, x⟩ ≈ a(h)/r."""
        rows = torch.stack([a.encoder for a in affines])
        constant = offsets(affines, Normalization.NONE) - rows @ self.frame.added
        rows = rows + constant[:, None] * self.one / self.level
        for kind in {a.normalization for a in affines} - {Normalization.NONE}:
            rows = rows + offsets(affines, kind)[:, None] * self.scale_row(kind) / self.level
        return rows

    def centred(self, rows: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
        """The rows [n, d], shifted until they give on average what is wanted, once rounded.

        Args:
            rows: as they will be stored, but for their rounding.
            wanted: what they are to give on each token, shape [tokens, n].
            counted: which tokens the average is over, same shape.
        """
        unit = (self.unit[:, None] * counted).sum(dim=0)
        # Too few tokens say more of themselves than of the rounding.
        unit = unit.clamp(min=16 * float(self.unit[~self.is_sink].mean()))
        for _ in range(3):
            given = self.x @ rows.to(self.dtype).double().T
            shift = ((given - wanted) * counted).sum(dim=0) / unit
            rows = rows - shift[:, None] * self.one
        return rows

    def widening(self, gap: Tensor, rows: tuple[Tensor, Tensor], passed: Tensor) -> Tensor:
        """How much wider the gap between two rows each is once they are rounded, shape [n].

        The stream has a large mean, and so rounding widens a gap much alike on all tokens.

        Args:
            gap: the exact one, shape [n, d].
            rows: the upper and the lower ones, of the same shape, before rounding.
            passed: the tokens that count most, since what stands there is read, shape [tokens, n].
        """
        above, below = (row.to(self.dtype).double() for row in rows)
        ordinary = ~self.is_sink
        weight = passed.double() + _FEW_PASSED / ordinary.sum()
        given, wanted = (
            (self.x @ row.T * weight)[ordinary].sum(dim=0) for row in (above - below, gap)
        )
        return given / wanted


@dataclass(frozen=True, eq=False)
class _Block(Neurons):
    """Neurons: gate and up rows [n, d], and what each writes, [n, d]."""

    gate: Tensor
    up: Tensor
    down: Tensor

    @staticmethod
    def none(hidden_size: int) -> _Block:
        rows = torch.zeros(0, hidden_size).double()
        return _Block(rows, rows, rows)


def _inexact(site: Site, parts: Parts, view: _View) -> Iterator[str]:
    """What is read out of the stream with an error that shows."""
    kinds = {a.normalization for a in (*parts.ramps, *parts.jumps, *parts.linear)}
    kinds |= {kind for kind, _ in parts.scaled_constants}
    ordinary = ~view.is_sink
    unit = (view.unit * view.r / view.level)[ordinary]
    error = float((unit - 1).square().mean().sqrt())
    # The norm makes what is constant exact, whatever it is read with.
    if kinds and error > _REPORTED:
        yield (
            f"layer {site.place}: the family's MLP has no biases; what stands for them varies by "
            f"{error:.2%} from token to token, and the sizes of edits with it"
        )
    for kind in sorted(kinds - {Normalization.NONE}):
        read = view.x @ view.scale_row(kind) * view.r / view.level / view.scale_of(kind)
        error = float((read[ordinary] - 1).square().mean().sqrt())
        yield (
            f"layer {site.place}: the SAE normalises its input ({kind.value}), and the scale is "
            f"read with an error of {error:.2%}"
        )


def _directions(affines: list[Affine], view: _View) -> Tensor:
    return directions(affines) * view.frame.down


def _powers_of_two(values: Tensor) -> Tensor:
    return torch.exp2(values.log2().round())


def _probes(affines: list[Affine], view: _View) -> _Block:
    """Neurons that write nothing: their gates are above zero where jumps are passed."""
    if not affines:
        return _Block.none(len(view.one))
    rows = _jump_rows(affines, view)
    return _Block(rows, torch.zeros_like(rows), torch.zeros_like(rows))


def _constants(view: _View) -> _Block:
    """What is the same on every token, the dominant part with it; even in ⟨one, x⟩.

    A third neuron writes what rounding takes from the first.
    """
    gate = view.constants.opening * view.one
    exact = view.frame.constant_row
    rounded = exact.to(view.dtype).double()
    rest = (exact - rounded).masked_fill((exact - rounded).abs() < 1e-12 * exact.abs(), 0.0)
    return _Block(
        torch.stack([gate, -gate, gate]),
        torch.stack([view.one, -view.one, view.one]),
        torch.stack([rounded, rounded, rest]),
    )


def _copied(scale: Tensor, copies: int) -> list[Tensor]:
    """Scales within a factor of two of each other, at each of which numbers round otherwise."""
    return [scale * 2.0 ** (copy / copies) for copy in range(copies)]


def _linear(affines: list[Affine], view: _View, copies: int) -> _Block:
    """The dominant part's own gate, whose rounding the norm takes away; `up` reads a(h)/r."""
    if not affines:
        return _Block.none(len(view.one))
    wanted = view.values(affines) / view.r[:, None]
    ordinary = ~view.is_sink
    scale = _powers_of_two(1.0 / wanted[ordinary].std(dim=0).clamp(min=1e-30))[:, None]
    scales = _copied(scale, copies)
    counted = ordinary[:, None].expand_as(wanted)
    rows, down = view.rows(affines), _directions(affines, view) * view.level / copies
    up = torch.cat([view.centred(s * rows, s.T * wanted, counted) for s in scales])
    gate = (view.constants.opening * view.one).expand_as(up)
    return _Block(gate, up, torch.cat([down / s for s in scales]))


def _ramps(affines: list[Affine], view: _View, copies: int) -> _Block:
    """gelu(K·a/r) ≈ K·relu(a)/r."""
    if not affines:
        return _Block.none(len(view.one))
    wanted = view.values(affines) / view.r[:, None]
    ordinary = ~view.is_sink
    typical = wanted[ordinary].std(dim=0).clamp(min=1e-30)
    scales = _copied(_powers_of_two(view.constants.sharpness / typical)[:, None], copies)
    counted = (wanted > 0) & ordinary[:, None]
    rows = view.rows(affines)
    down = _directions(affines, view) * view.constants.opening * view.level / copies
    gate = torch.cat([view.centred(s * rows, s.T * wanted, counted) for s in scales])
    return _Block(gate, view.one.expand_as(gate), torch.cat([down / s for s in scales]))


def _jump_rows(affines: list[Affine], view: _View) -> Tensor:
    """Rows [n, d] that go from -c·⟨one, x⟩ to c·⟨one, x⟩ over a jump's ramp."""
    values = view.values(affines)
    ordinary = ~view.is_sink
    encoders = torch.stack([a.encoder for a in affines], dim=1)
    noise = (view.activations.serving.double() - view.activations.reference.double()) @ encoders
    width = ramp_widths(values[ordinary], noise[ordinary], view.constants, view.dtype)
    slope = 2 * view.frame.form.saturation * view.level / width
    # The tokens nearest to the threshold, which rounding may move to its other side.
    distance = values.abs().masked_fill(view.is_sink[:, None], torch.inf)
    nearest = distance.topk(min(256, int(ordinary.sum())), dim=0, largest=False).indices
    counted = torch.zeros_like(values).scatter(0, nearest, 1.0).bool()
    wanted = slope * values / view.r[:, None]
    return view.centred(slope[:, None] * view.rows(affines), wanted, counted)


def _jumps(affines: list[Affine], view: _View, copies: int) -> _Block:
    """gelu(g + c) - gelu(g - c) rises from 0 to 2c around g = 0.

    Far above the jump it is a difference of large numbers, each with its own rounding, which a mean
    over copies makes small.
    """
    if not affines:
        return _Block.none(len(view.one))
    half = view.frame.form.saturation
    rows = _jump_rows(affines, view)
    gaps = half * torch.stack([view.scale_row(a.normalization) for a in affines])
    step = _directions(affines, view) * view.constants.opening / (2 * half * copies)
    passed = view.values(affines) > 0
    gates, down = [], []
    for scale in map(float, _copied(torch.ones(()), copies)):
        above, below = scale * (rows + gaps), scale * (rows - gaps)
        written = step / (scale * view.widening(above - below, (above, below), passed))[:, None]
        gates += [above, below]
        down += [written, -written]
    gate = torch.cat(gates)
    return _Block(gate, view.one.expand_as(gate), torch.cat(down))


def _scaled_constant(kind: Normalization, vector: Tensor, view: _View) -> _Block:
    """s(h)·c for an SAE that normalises its input."""
    gate = view.constants.opening * view.scale_row(kind)
    return _Block(gate[None], view.one[None], (vector * view.frame.down)[None])


def _sink_guard(view: _View) -> _Block:
    """A neuron that is silent on ordinary tokens, and drowns all others on sinks."""
    # All neurons grow alike with a token's norm, so only its direction matters.
    size = view.x.norm(dim=1)
    x = view.x * (size[~view.is_sink].median() / size)[:, None]
    unit = x @ view.one
    balance = torch.where(view.is_sink, 1 / view.is_sink.sum(), 1 / (~view.is_sink).sum()).double()
    second = (x * balance[:, None]).T @ x
    second.diagonal().add_(1e-4 * second.diagonal().mean())
    target = torch.where(view.is_sink, 1.0, -1.0).double()
    row = torch.linalg.solve(second, (balance * target) @ x)
    # Lowered until the gap between the two kinds of tokens lies around zero.
    lowered = torch.linspace(-1.0, 2.0, 49).double()
    scores = (x @ row)[:, None] - unit[:, None] * lowered
    highest = scores[~view.is_sink].amax(dim=0)
    lowest = scores[view.is_sink].amin(dim=0)
    row = row - lowered[torch.minimum(-highest, lowest).argmax()] * view.one
    return _Block((_GUARD * row)[None], row[None], (_GUARD * view.frame.sink_row)[None])
