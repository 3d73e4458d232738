"""The construction for pre-norm blocks whose linear layers may carry biases.

The MLP reads x = h'/r with h' = h + a and r = rms(h'): the norm has removed the scale that
thresholds and outputs need. The attention bias a is chosen so that ⟨e, a⟩ = b - t for the
threshold t of every term: then the sign of ⟨e, x⟩ is the sign of p - t, whatever r is. The `up`
projection of a ramp is a linear read-out of r, which gives the scale back; a jump's height is a
constant and needs no scale. What a adds to the stream, `down_bias` takes away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hubsplice.architectures.spliced_layer import SplicedLayer
from hubsplice.calibration import SiteActivations
from hubsplice.intervention import Normalization, PiecewiseLinear, Site, Term
from hubsplice.readout import ReadOut, RidgeFitter


@dataclass(frozen=True)
class PreNormConstants:
    """Constants of the construction, per serving precision.

    Attributes:
        injection: the most that the constant on one channel measures, in units of the median
            residual norm. It steadies r.
        channels: how many channels carry it.
        longest_bias: the most that the rest of the attention bias may measure, in that unit.
        sharpness: factor on a ramp's gate; SiLU is a ReLU to within 0.28/sharpness of it.
        ramp_sigmas: width of a jump's ramp, in units of the noise that the serving precision
            puts on the pre-activation.
        narrowest_ramp: the least such width, in standard deviations of the pre-activation.
        saturation: half the distance between a jump's two gates; a power of two, so that the
            rounding of the two gates cancels.
        damping: ridge strength of the read-outs.
        guard_modes: how many directions of what is written at sinks are followed from sink to
            sink, beside its mean.
    """

    injection: float
    channels: int
    longest_bias: float
    ramp_sigmas: float
    narrowest_ramp: float = 1e-3
    sharpness: float = 8192.0
    saturation: float = 32.0
    damping: float = 1e-6
    guard_modes: int = 3


CONSTANTS = {
    torch.bfloat16: PreNormConstants(injection=1.2, channels=4, longest_bias=0.5, ramp_sigmas=3.0),
    torch.float32: PreNormConstants(
        injection=16.0, channels=1, longest_bias=32.0, ramp_sigmas=0.0, damping=1e-9
    ),
}


def compile_prenorm(
    site: Site,
    activations: SiteActivations,
    dtype: torch.dtype,
    constants: PreNormConstants | None = None,
) -> SplicedLayer:
    """Compile a site's terms into one inserted layer.

    Args:
        site: what to compile; its `sink_norm` says which tokens must stay untouched.
        activations: calibration at this site.
        dtype: the serving precision, which the tensors are rounded to.
        constants: overrides `CONSTANTS[dtype]`.
    """
    constants = constants or CONSTANTS[dtype]
    if not site.terms:
        return SplicedLayer.empty(activations.reference.shape[1], dtype)
    parts = _decompose(site, activations)
    bias = _attention_bias(site, parts, activations, constants).to(dtype)
    view = _View.of(site, activations, bias, constants)
    down_bias = parts.constant - bias.double()
    blocks = [
        _ramps(parts.ramps, view),
        _linear(parts.linear, view),
        _jumps(parts.jumps, view),
        *(_scaled_constant(vector, view) for vector in parts.scaled_constants),
        _constant_remainder(down_bias, dtype, constants.saturation),
    ]
    first_jump = blocks[0].neurons + blocks[1].neurons
    if view.has_sinks:
        blocks.append(_sink_guard(_layer(blocks, bias, down_bias), view))
    layer = _layer(blocks, bias, down_bias)
    return SplicedLayer(
        **{name: getattr(layer, name) for name in SplicedLayer.tensor_names()},
        constants=asdict(constants) | {"construction": "prenorm-bias", "neurons": layer.neurons},
        jump_gates=tuple(
            (affine.term, first_jump + i, affine.side) for i, affine in enumerate(parts.jumps)
        ),
    )


@dataclass(frozen=True, eq=False)
class _Affine:
    """a(h) = ⟨encoder, h⟩ + offset·s(h) of one of the site's terms, and what is written with it."""

    term: int
    encoder: Tensor
    offset: float
    normalization: Normalization
    direction: Tensor
    side: int

    @staticmethod
    def of(index: int, term: Term, at: float, factor: float, *, side: int = 1) -> _Affine:
        """side·(p - at), for p the term's pre-activation; side is 1 or -1."""
        encoder = term.encoder.double()
        if term.normalization is Normalization.LAYER_NORM:
            encoder = encoder - encoder.mean()
        return _Affine(
            index,
            side * encoder,
            side * (term.bias - at),
            term.normalization,
            factor * term.direction.double(),
            side,
        )

    @property
    def threshold(self) -> tuple[Tensor, float]:
        """The encoder at unit length and the bias it wants, the same for a(h) and -a(h)."""
        length = self.encoder.norm() * self.encoder[self.encoder != 0][0].sign()
        offset = self.offset if self.normalization is Normalization.NONE else 0.0
        return self.encoder / length, offset / float(length)


@dataclass(frozen=True, eq=False)
class _Parts:
    """A site's terms, sorted by the neurons that they need."""

    ramps: list[_Affine]
    jumps: list[_Affine]
    linear: list[_Affine]
    constant: Tensor
    scaled_constants: list[tuple[Normalization, Tensor]]


def _decompose(site: Site, activations: SiteActivations) -> _Parts:
    """Sort every φ into a line, bends and jumps, outward from the piece most tokens lie on.

    Starting where the tokens are keeps what they get free of differences of large numbers; and a
    line is taken relative to its mean, which is a constant and so costs no precision.
    """
    h = activations.reference[~site.is_sink(activations.reference)].double()
    projections = site.projections(h.float()).double()
    ramps, jumps, linear = [], [], []
    constant = torch.zeros_like(site.terms[0].direction, dtype=torch.float64)
    scaled: dict[Normalization, Tensor] = {}
    for number, (term, p) in enumerate(zip(site.terms, projections.unbind(dim=1), strict=True)):
        function = term.function
        if not term.encoder.any():
            # Nothing is read, and φ has one value.
            function = PiecewiseLinear.constant(function(term.bias))
        edges = torch.tensor(function.breakpoints, dtype=torch.float64)
        home = int(torch.bincount((p[:, None] > edges).sum(dim=1)).argmax())
        level, slope = function.intercepts[home], function.slopes[home]
        if slope:
            middle = float(p.mean())
            linear.append(_Affine.of(number, term, middle, slope))
            level += slope * middle
        if level and term.normalization is Normalization.NONE:
            constant += level * term.direction
        elif level:
            so_far = scaled.get(term.normalization, torch.zeros_like(constant))
            scaled[term.normalization] = so_far + level * term.direction
        for index, kink in enumerate(function.kinks):
            side = 1 if index >= home else -1
            if kink.slope_change:
                ramps.append(_Affine.of(number, term, kink.at, kink.slope_change, side=side))
            if kink.jump:
                jumps.append(_Affine.of(number, term, kink.at, side * kink.jump, side=side))
    return _Parts(ramps, jumps, linear, constant, list(scaled.items()))


def _attention_bias(
    site: Site, parts: _Parts, activations: SiteActivations, constants: PreNormConstants
) -> Tensor:
    """The shortest bias, beside the injected constant, that carries every threshold.

    Jumps come first where one direction has several thresholds: a bend that is a little off
    changes little, a jump that is off fires on the wrong tokens.
    """
    longest = constants.longest_bias * activations.median_norm
    start = torch.zeros_like(parts.constant)
    targets: dict[bytes, tuple[Tensor, float]] = {}
    for affine in (*parts.jumps, *parts.ramps, *parts.linear):
        encoder, offset = affine.threshold
        targets.setdefault(encoder.float().numpy().tobytes(), (encoder, offset))
    if any(a.normalization is Normalization.NONE for a in (*parts.ramps, *parts.linear)):
        start = _injection(site, activations, constants)
    if not targets:
        return start
    encoders = torch.stack([encoder for encoder, _ in targets.values()])
    missing = torch.tensor([t for _, t in targets.values()]).double() - encoders @ start
    # The injected channels are left out: thresholds that outnumber the dimensions would otherwise
    # be met best by taking the injection away, and r could no longer be told.
    free = encoders.masked_fill(start != 0, 0.0)
    values, vectors = torch.linalg.eigh(free @ free.T)
    damping = constants.damping
    while True:
        solved = vectors @ ((vectors.T @ missing) / (values.clamp(min=0) + damping))
        change = free.T @ solved
        if change.norm() <= longest:
            return start + change
        damping *= 2.0


def _injection(site: Site, activations: SiteActivations, constants: PreNormConstants) -> Tensor:
    """A constant on the channels that the other channels predict best, shape [d].

    What such a channel holds beside the constant can be told from the rest of x, so that x there
    gives 1/r. Its size with the channel's own value stays just below a power of two: above it a
    float's spacing doubles, and so would the rounding of that value.
    """
    h = activations.reference[~site.is_sink(activations.reference)].double()
    bias = torch.zeros(h.shape[1], dtype=torch.float64)
    size = constants.injection * activations.median_norm
    if not size:
        return bias
    covariance = torch.cov(h.T)
    covariance.diagonal().add_(1e-6 * covariance.diagonal().mean())
    precision = torch.linalg.inv(covariance)
    below = 2.0 ** math.floor(math.log2(size))
    for channel in precision.diagonal().topk(constants.channels).indices.tolist():
        # The sign under which the channels tell most together.
        sign = 1.0 if precision[channel] @ (bias + h.mean(dim=0)) >= 0 else -1.0
        room = (sign * h[:, channel]).quantile(0.999).clamp(min=0)
        bias[channel] = sign * (below - room)
    return bias


@dataclass(frozen=True, eq=False)
class _View:
    """Calibration as the inserted MLP sees it, and the read-outs fitted to it."""

    activations: SiteActivations
    constants: PreNormConstants
    dtype: torch.dtype
    bias: Tensor
    x: Tensor
    r: Tensor
    is_sink: Tensor
    fitter: RidgeFitter

    @staticmethod
    def of(
        site: Site, activations: SiteActivations, bias: Tensor, constants: PreNormConstants
    ) -> _View:
        probe = SplicedLayer.empty(bias.shape[0], bias.dtype).with_attention_bias(bias)
        x = probe.normalise(activations.serving, activations.eps).double()
        shifted = activations.reference.double() + bias.double()
        r = (shifted.pow(2).mean(dim=-1) + activations.eps).sqrt()
        is_sink = site.is_sink(activations.reference)
        # Sinks would cost the read-outs most of their precision (what marks a sink is what best
        # tells r on other tokens), so the guard takes back what the layer writes there.
        energy = site.delta(activations.reference).double().pow(2).sum(dim=-1)[~is_sink]
        weights = 0.1 + energy / energy.mean().clamp(min=1e-30)
        weights = weights.clamp(max=float(weights.quantile(0.999))) / r[~is_sink].pow(2)
        fitter = RidgeFitter(x[~is_sink], weights, damping=constants.damping)
        return _View(activations, constants, bias.dtype, bias, x, r, is_sink, fitter)

    def read_out(self, target: Tensor) -> ReadOut:
        """A read-out from x of a quantity given per token, fitted where the token is no sink."""
        return self.fitter.fit(target[~self.is_sink])

    @property
    def has_sinks(self) -> bool:
        return bool(self.is_sink.any())

    def scale_of(self, normalization: Normalization) -> Tensor:
        """s(h) of every token, shape [tokens]."""
        return normalization.apply(self.activations.reference.double())[1][:, 0]

    def reference_values(self, affines: list[_Affine]) -> Tensor:
        """a(h)/r of every affine from the reference stream, shape [tokens, n]."""
        encoders = torch.stack([a.encoder for a in affines], dim=1)
        values = self.activations.reference.double() @ encoders
        for kind in {a.normalization for a in affines}:
            offsets = torch.tensor(
                [a.offset if a.normalization is kind else 0.0 for a in affines]
            ).double()
            values += self.scale_of(kind)[:, None] * offsets
        return values / self.r[:, None]

    def rows(self, affines: list[_Affine]) -> tuple[Tensor, Tensor]:
        """Rows [n, d] and biases [n] whose product with [x, 1] is a(h)/r.

        What the attention bias leaves of a threshold is read out of x.
        """
        encoders = torch.stack([a.encoder for a in affines])
        weights, biases = encoders.clone(), torch.zeros(len(affines)).double()
        corrections = [(Normalization.NONE, -encoders @ self.bias.double())]
        for kind in {a.normalization for a in affines}:
            offsets = [a.offset if a.normalization is kind else 0.0 for a in affines]
            corrections.append((kind, torch.tensor(offsets).double()))
        for kind in Normalization:
            amount = sum((c for k, c in corrections if k is kind), torch.zeros_like(biases))
            if amount.any():
                readout = self.read_out(self.scale_of(kind) / self.r)
                weights += amount[:, None] * readout.weight.double()
                biases += amount * readout.bias
        return weights, biases


@dataclass(frozen=True, eq=False)
class _Block:
    """Neurons: gate and up rows [n, d] with biases [n], and what each writes, [n, d]."""

    gate_weight: Tensor
    gate_bias: Tensor
    up_weight: Tensor
    up_bias: Tensor
    down: Tensor

    @property
    def neurons(self) -> int:
        return len(self.gate_bias)

    @staticmethod
    def none(hidden_size: int) -> _Block:
        rows, biases = torch.zeros(0, hidden_size).double(), torch.zeros(0).double()
        return _Block(rows, biases, rows, biases, rows)


def _layer(blocks: Iterable[_Block], bias: Tensor, down_bias: Tensor) -> SplicedLayer:
    blocks = list(blocks) or [_Block.none(len(bias))]
    dtype = bias.dtype

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(block, name) for block in blocks]).to(dtype)

    return SplicedLayer(
        bias,
        joined("gate_weight"),
        joined("gate_bias"),
        joined("up_weight"),
        joined("up_bias"),
        joined("down").T.contiguous(),
        down_bias.to(dtype),
    )


def _directions(affines: list[_Affine]) -> Tensor:
    return torch.stack([a.direction for a in affines])


def _scaled_rows(readout: ReadOut, count: int, intercept: float) -> tuple[Tensor, Tensor, float]:
    """A read-out as `count` equal rows and biases, and the factor that they were scaled by.

    The factor makes the bias exactly `intercept`, a power of two: rounding it would scale every
    output alike.
    """
    factor = intercept / readout.bias if readout.bias > 1e-2 else 1.0
    return (
        factor * readout.weight.double().expand(count, -1),
        torch.full((count,), factor * readout.bias, dtype=torch.float64),
        factor,
    )


def _ramps(affines: list[_Affine], view: _View) -> _Block:
    """silu(K·a/r)·r/K ≈ relu(a), one neuron each."""
    if not affines:
        return _Block.none(len(view.bias))
    weights, biases = view.rows(affines)
    sharpness = view.constants.sharpness
    rounded = (sharpness * weights).to(view.dtype).double() / sharpness
    truth = view.reference_values(affines)
    error = view.x @ rounded.T + biases - truth
    active = (truth > 0) & ~view.is_sink[:, None]
    biases = biases - (error * active).sum(dim=0) / active.sum(dim=0).clamp(min=16)
    up_weights, up_biases, factor = _scaled_rows(view.read_out(view.r), len(affines), 4.0)
    return _Block(
        sharpness * weights,
        sharpness * biases,
        up_weights,
        up_biases,
        _directions(affines) / (sharpness * factor),
    )


def _linear(affines: list[_Affine], view: _View) -> _Block:
    """silu of a large multiple of r is that multiple: r·(a/r) = a, one neuron each, no kink."""
    if not affines:
        return _Block.none(len(view.bias))
    gate_weights, gate_biases, factor = _scaled_rows(view.read_out(view.r), len(affines), 64.0)
    weights, biases = view.rows(affines)
    error = view.x @ weights.to(view.dtype).double().T + biases - view.reference_values(affines)
    biases = biases - error[~view.is_sink].mean(dim=0)
    return _Block(gate_weights, gate_biases, weights, biases, _directions(affines) / factor)


def _jumps(affines: list[_Affine], view: _View) -> _Block:
    """silu(g + c) - silu(g - c) rises from 0 to 2c around g = 0; `up` is s(h), mostly one."""
    if not affines:
        return _Block.none(len(view.bias))
    constants, ordinary = view.constants, ~view.is_sink
    truth = view.reference_values(affines) * view.r[:, None]
    encoders = torch.stack([a.encoder for a in affines], dim=1)
    noise = (view.activations.serving.double() - view.activations.reference.double()) @ encoders
    width = torch.maximum(
        constants.ramp_sigmas * noise[ordinary].std(dim=0),
        constants.narrowest_ramp * truth[ordinary].std(dim=0),
    ).clamp(min=1e-12)
    slope = 2 * constants.saturation * view.r[ordinary].median() / width
    weights, biases = view.rows(affines)
    weights, biases = slope[:, None] * weights, slope * biases
    gates = view.x @ weights.to(view.dtype).double().T + biases
    error = gates - slope * truth / view.r[:, None]
    # The rounding of the rows and of x moves the threshold: take back the mean error of the
    # tokens nearest to it.
    near = truth.abs().masked_fill(view.is_sink[:, None], torch.inf)
    nearest = near.topk(min(256, int(ordinary.sum())), dim=0, largest=False).indices
    biases = biases - error.gather(0, nearest).mean(dim=0)
    biases = _on_grid(biases, constants.saturation, view.dtype)
    up_weights, up_biases, factors = _heights(affines, view)
    height = _directions(affines) / (2 * constants.saturation * factors[:, None])
    return _Block(
        torch.cat([weights, weights]),
        torch.cat([biases + constants.saturation, biases - constants.saturation]),
        torch.cat([up_weights, up_weights]),
        torch.cat([up_biases, up_biases]),
        torch.cat([height, -height]),
    )


def _heights(affines: list[_Affine], view: _View) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [n, d] and biases [n] that give s(h), and the factors [n] they were scaled by.

    Without input normalisation s is one, and exactly so.
    """
    weights = torch.zeros(len(affines), len(view.bias)).double()
    biases, factors = torch.ones(len(affines)).double(), torch.ones(len(affines)).double()
    for kind in {a.normalization for a in affines} - {Normalization.NONE}:
        chosen = torch.tensor([a.normalization is kind for a in affines])
        readout = view.read_out(view.scale_of(kind))
        weights[chosen], biases[chosen], factor = _scaled_rows(readout, int(chosen.sum()), 4.0)
        factors[chosen] = factor
    return weights, biases, factors


def _on_grid(biases: Tensor, saturation: float, dtype: torch.dtype) -> Tensor:
    """Biases rounded so that bias ± saturation are both representable in `dtype`."""
    largest = biases.abs() + saturation
    step = torch.exp2(torch.floor(torch.log2(largest))) * torch.finfo(dtype).eps
    return torch.round(biases / step) * step


def _scaled_constant(scaled: tuple[Normalization, Tensor], view: _View) -> _Block:
    """s(h)·c for an SAE that normalises its input: a gate that is always open, up = s."""
    kind, vector = scaled
    up_weights, up_biases, factor = _scaled_rows(view.read_out(view.scale_of(kind)), 1, 4.0)
    return _Block(
        torch.zeros_like(vector)[None],
        torch.full((1,), view.constants.saturation, dtype=torch.float64),
        up_weights,
        up_biases,
        vector[None] / (view.constants.saturation * factor),
    )


def _constant_remainder(exact: Tensor, dtype: torch.dtype, saturation: float) -> _Block:
    """What rounding takes from a constant vector, written by a neuron that is always open."""
    rest = exact - exact.to(dtype).double()
    if not rest.any():
        return _Block.none(len(exact))
    nothing, one = torch.zeros_like(exact)[None], torch.ones(1, dtype=torch.float64)
    return _Block(nothing, saturation * one, nothing, one, rest[None] / saturation)


def _sink_guard(layer: SplicedLayer, view: _View) -> _Block:
    """Neurons that fire on sinks alone and take back what the layer writes there.

    A pair takes back the mean, and further pairs the directions in which what is written varies
    most from sink to sink, each by as much as x tells.
    """
    balance = torch.where(view.is_sink, 1 / view.is_sink.sum(), 1 / (~view.is_sink).sum())
    detector = RidgeFitter(view.x, balance.double(), damping=1e-4).fit(view.is_sink.double())
    gain, saturation = 256.0, view.constants.saturation
    x = view.x[view.is_sink]
    exact = layer.to(torch.float32)
    hidden = functional.silu(exact.gates(x.float())) * functional.linear(
        x.float(), exact.up_weight, exact.up_bias
    )
    written = (hidden @ exact.down_weight.T + exact.down_bias + exact.attention_bias).double()
    mean = written.mean(dim=0)
    modes = torch.linalg.svd(written - mean, full_matrices=False).Vh[: view.constants.guard_modes]
    fitter = RidgeFitter(x, torch.ones(len(x)).double(), damping=1e-2)
    shares = [fitter.fit((written - mean) @ mode) for mode in modes]
    up_weight = torch.stack([torch.zeros_like(mean), *(s.weight.double() for s in shares)])
    up_bias = torch.tensor([1.0, *(share.bias for share in shares)], dtype=torch.float64)
    down = torch.cat([mean[None], modes]) / (2 * saturation)
    weight = (gain * detector.weight.double()).expand_as(up_weight)
    bias = torch.full_like(up_bias, gain * (detector.bias - 0.5))
    bias = _on_grid(bias, saturation, view.dtype)
    return _Block(
        torch.cat([weight, weight]),
        torch.cat([bias + saturation, bias - saturation]),
        torch.cat([up_weight, up_weight]),
        torch.cat([up_bias, up_bias]),
        torch.cat([-down, down]),
    )
