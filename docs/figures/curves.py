"""What neurons add up to in each construction, as the compiler makes them.

One feature of a synthetic stream is compiled for bfloat16, with each part of φ by itself. Three
tokens of different norms are then moved along the direction in which the stream goes with the
feature's p, in float32, so that the rounding of the stream does not hide the shapes. Curves are in
units of p's standard deviation, and a jump is one high.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from docs.figures.canvas import Plot, Point
from hubsplice.constructions.bias_free import compile_bias_free
from hubsplice.constructions.bias_free_layer import BiasFreeLayer
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.layernorm import CONSTANTS as LAYERNORM
from hubsplice.constructions.layernorm import compile_layernorm
from hubsplice.constructions.layernorm_layer import PlainLayer
from hubsplice.constructions.prenorm import CONSTANTS as PRENORM
from hubsplice.constructions.prenorm import compile_prenorm
from hubsplice.constructions.prenorm_layer import SplicedLayer
from hubsplice.constructions.sandwich import compile_sandwich
from hubsplice.constructions.sandwich_form import POST_NORM, SANDWICH
from hubsplice.constructions.sandwich_layer import SandwichLayer
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.calibration import SiteActivations

_DTYPE, _WIDTH, _TOKENS, _EPS, _ROOM = torch.bfloat16, 96, 3000, 1e-5, 4096
_THRESHOLD = 0.5
_QUANTILES = (0.03, 0.5, 0.97)


@dataclass(frozen=True, eq=False)
class Feature:
    """A feature of a stream, and tokens to look at.

    Attributes:
        activations: the stream.
        encoder, direction: at unit length, shape [d].
        bias: which makes the mean of p zero.
        deviation: of p.
        along: in which the stream moves with p, for one unit of it, shape [d].
        tokens: of small, of median and of large norm, shape [3, d].
    """

    activations: SiteActivations
    encoder: Tensor
    bias: float
    direction: Tensor
    deviation: float
    along: Tensor
    tokens: Tensor

    @staticmethod
    def synthetic() -> Feature:
        """A stream of quiet and loud directions, one of which tells a token's size."""
        generator = torch.Generator().manual_seed(7)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        turn = torch.linalg.qr(normal(_WIDTH, _WIDTH)).Q
        spread = 1.5 * 0.8 ** torch.arange(_WIDTH) + 0.03
        mean, size = 1.5 * normal(_WIDTH), 1.5 * normal(_WIDTH)
        sizes = 1.0 + 0.4 * normal(_TOKENS, 1)
        h = (mean + sizes * size + normal(_TOKENS, _WIDTH) * spread @ turn.T).float()
        # What the layers before have gathered at the serving precision.
        noise = 0.02 * h.std(dim=0) * normal(_TOKENS, _WIDTH).float()
        norms = h.norm(dim=1)
        activations = SiteActivations(h, (h + noise).bfloat16(), float(norms.median()), _EPS)
        # A feature that has nothing to do with the size, which p then leaves alone.
        size /= size.norm()
        encoder = normal(_WIDTH)
        encoder = functional.normalize(encoder - (encoder @ size) * size, dim=0).float()
        direction = functional.normalize(normal(_WIDTH).float(), dim=0)
        p, covariance = h @ encoder, torch.cov(h.T)
        order = norms.argsort()
        return Feature(
            activations,
            encoder,
            -float(p.mean()),
            direction,
            float(p.std()),
            covariance @ encoder / (encoder @ covariance @ encoder),
            h[order[[int(q * _TOKENS) for q in _QUANTILES]]],
        )

    def site(self, function: PiecewiseLinear) -> Site:
        """A site with this φ alone."""
        return Site(0, (Term("feature", self.encoder, self.bias, function, self.direction),))

    def moved(self, token: Tensor, p: Tensor) -> Tensor:
        """A token [d] as it is where the feature's p is each of these [n], shape [n, d]."""
        return token + (p - (token @ self.encoder + self.bias))[:, None] * self.along


FEATURE = Feature.synthetic()


def _touching() -> float:
    """Where SiLU goes with the reciprocal of its argument: g·silu(g) is flat there."""
    g = torch.linspace(-4.0, -1.3, 27001, dtype=torch.float64)
    return float(g[(g * functional.silu(g)).argmax()])


BRANCH = _touching()
"""The gate around which SiLU's falling branch goes with 1/g."""

BRANCH_VALUE = float(functional.silu(torch.tensor(BRANCH)))
"""What SiLU gives there."""


Construction = Callable[[Site], CompiledLayer]


def biased(site: Site) -> SplicedLayer:
    """The construction with biases everywhere, with one pair of neurons for a jump."""
    constants = replace(PRENORM[_DTYPE], jump_copies=1)
    return compile_prenorm(site, FEATURE.activations, _DTYPE, constants)


def bias_free(site: Site) -> BiasFreeLayer:
    """That without biases in the MLP."""
    return compile_bias_free(site, FEATURE.activations, _DTYPE, _ROOM)


def sandwich(site: Site) -> SandwichLayer:
    """That with norms on both sides."""
    return compile_sandwich(site, FEATURE.activations, _DTYPE, _ROOM, SANDWICH)


def post_norm(site: Site) -> SandwichLayer:
    """That with a norm after each block alone."""
    return compile_sandwich(site, FEATURE.activations, _DTYPE, _ROOM, POST_NORM)


def layernorm(site: Site) -> PlainLayer:
    """That for LayerNorm and a plain MLP."""
    return compile_layernorm(
        site,
        FEATURE.activations,
        _DTYPE,
        activation="gelu",
        room=_ROOM,
        constants=LAYERNORM[_DTYPE],
    )


def line(construct: Construction) -> Plot:
    """φ = p. Thin: what each token would get with the scale of the median one."""
    layer = _compiled(construct, PiecewiseLinear.linear(1.0))
    p = torch.linspace(-1.5, 2.5, 41)
    neurons = _after_constants(layer, 1)
    held = [_held(layer, h, gate_varies=False)[:, neurons].sum(dim=1) for h in _moved(p)]
    return Plot(-1.5, 2.5, -1.6, 2.6, "p", _curves(p, held), _curves(p, _added(layer, p)))


def two_bends(construct: Construction) -> Plot:
    """φ = p of two bends. Thin: what each of them writes."""
    layer = _compiled(construct, PiecewiseLinear.linear(1.0))
    p = torch.linspace(-1.5, 2.5, 41)
    # All but the last, which writes a constant's remainder; those of the two sides take turns.
    each = [side for h in _moved(p) for side in _alternating(_held(layer, h)[:, :-1])]
    return Plot(-1.5, 2.5, -1.6, 2.6, "p", _curves(p, each), _curves(p, _added(layer, p)))


def bend(construct: Construction) -> Plot:
    """φ = relu(p - t). Thin: what each token would get with the scale of the median one."""
    layer = _compiled(construct, PiecewiseLinear.relu(_THRESHOLD * FEATURE.deviation))
    p = torch.linspace(-1.5, 3.0, 91)
    neurons = _after_constants(layer, 1)
    held = [_held(layer, h)[:, neurons].sum(dim=1) for h in _moved(p)]
    marks = [(_THRESHOLD, "t")]
    return Plot(
        -1.5, 3.0, -0.5, 2.5, "p", _curves(p, held), _curves(p, _added(layer, p)), marks=marks
    )


def product(construct: Construction) -> Plot:
    """What the neurons add to a bend that open one after another, for every token.

    Dashed: what it should be.
    """
    layer = _compiled(construct, PiecewiseLinear.relu(_THRESHOLD * FEATURE.deviation))
    p = torch.linspace(-1.5, 3.0, 91)
    main = [_held(layer, h)[:, 0] for h in _moved(p)]
    rest = [a - b for a, b in zip(_added(layer, p), main, strict=True)]
    wanted = [(p - _THRESHOLD).clamp(min=0) * FEATURE.deviation - m for m in main]
    return Plot(
        -1.5,
        3.0,
        -0.45,
        0.45,
        "p",
        bold=_curves(p, rest),
        dashed=_curves(p, wanted),
        marks=[(_THRESHOLD, "t")],
    )


def jump(construct: Construction) -> Plot:
    """φ = 1[p > t], a few widths of the ramp around it. Thin: what the two bends write."""
    layer = _compiled(construct, PiecewiseLinear.step(_THRESHOLD * FEATURE.deviation, 1.0))
    width = _ramp_width(layer)
    p = torch.linspace(-2.0, 2.0, 81)
    at = _THRESHOLD + width * p
    neurons = _after_constants(layer, 2 * int(layer.constants.get("copies", 1)))
    each = _alternating(_held(layer, _moved(at)[1])[:, neurons])
    pairs = _curves(p, each, unit=1.0)
    added = _curves(p, _added(layer, at), unit=1.0)
    return Plot(-2.0, 2.0, -1.5, 1.8, "p", pairs, added, marks=[(0.0, "t")])


def squares(construct: Construction) -> Plot:
    """A constant as a mean square: what two neurons give that read one channel."""
    layer = _compiled(construct, PiecewiseLinear.constant(1.0))
    assert isinstance(layer, BiasFreeLayer)
    x = torch.linspace(-2.0, 2.0, 81)
    channel = int(FEATURE.direction.abs().argmax())
    read = torch.zeros(len(x), _WIDTH)
    read[:, channel] = x
    pair = [channel, channel + _WIDTH]
    full = layer.with_biases
    hidden = functional.silu(full.gates(read)) * functional.linear(read, full.up_weight)
    halves = _curves(x, list(hidden[:, pair].unbind(dim=1)), unit=1.0)
    whole = _curves(x, [hidden[:, pair].sum(dim=1)], unit=1.0)
    return Plot(-2.0, 2.0, -0.7, 3.5, "xᵢ", halves, whole)


def dominant(construct: Construction) -> Plot:
    """The dominant part as two neurons make it, over what stands for a constant, at any size."""
    layer = _compiled(construct, PiecewiseLinear.linear(1.0))
    assert isinstance(layer, SandwichLayer)
    one = layer.up_weight[0]
    u = torch.linspace(-1.8, 1.8, 73)
    read = u[:, None] * one / one.square().sum()
    hidden = layer.form.activate(layer.gates(read)) * functional.linear(read, layer.up_weight)
    # The gate is k times the `up`.
    k = layer.gate_weight[0].norm() / one.norm()
    halves = list((hidden[:, :2] / k).unbind(dim=1))
    tokens = [float((layer.normalise(h, _EPS) @ one)[0]) for h in _moved(torch.zeros(1))]
    return Plot(
        -1.8,
        1.8,
        -0.5,
        3.1,
        "u",
        _curves(u, halves, unit=1.0),
        _curves(u, [halves[0] + halves[1]], unit=1.0),
        marks=[(1.0, "1")],
        dots=[(value, value**2) for value in tokens],
    )


def falling_branch(construct: Construction) -> Plot:
    """SiLU of a line's gate. Bold: where the gates of tokens lie. Dashed: what goes with 1/g."""
    layer = _compiled(construct, PiecewiseLinear.linear(1.0))
    assert isinstance(layer, BiasFreeLayer)
    x = layer.with_biases.normalise(FEATURE.activations.reference, _EPS)
    gates = x @ layer.gate_weight[0]
    low, high = gates.quantile(0.01), gates.quantile(0.99)
    g, used = torch.linspace(-5.0, 0.0, 51), torch.linspace(float(low), float(high), 31)
    near = torch.linspace(-5.0, -1.5, 36)
    return Plot(
        -5.0,
        0.3,
        -0.36,
        0.06,
        "g",
        _curves(g, [functional.silu(g)], unit=1.0),
        _curves(used, [functional.silu(used)], unit=1.0),
        _curves(near, [BRANCH * BRANCH_VALUE / near], unit=1.0),
        marks=[(BRANCH, f"−{-BRANCH:.1f}")],
    )


def _compiled(construct: Construction, function: PiecewiseLinear) -> CompiledLayer:
    return construct(FEATURE.site(function)).to(torch.float32)


def _moved(p: Tensor) -> list[Tensor]:
    """Every token, moved to values [n] of p in standard deviations, shape [n, d] each."""
    return [FEATURE.moved(token, p * FEATURE.deviation) for token in FEATURE.tokens]


def _added(layer: CompiledLayer, p: Tensor) -> list[Tensor]:
    """What the layer adds along the feature's direction to each token, shape [n] each."""
    return [(layer(h, _EPS) - h) @ FEATURE.direction for h in _moved(p)]


def _held(layer: CompiledLayer, h: Tensor, *, gate_varies: bool = True) -> Tensor:
    """What neurons would write for h [n, d] if the scale were that of the median token.

    Args:
        layer: the layer.
        h: tokens.
        gate_varies: in a gated MLP without a norm behind it, whether it is `up` that gives the
            scale, and not the gate.

    Returns:
        Along the feature's direction, shape [n, neurons].
    """
    typical = _moved(torch.zeros(1))[1]
    if isinstance(layer, SandwichLayer):
        x = layer.normalise(h, _EPS)
        size = layer.mlp(layer.normalise(typical, _EPS)).square().mean().sqrt()
        gains = layer.form.gain(layer.output_norm).float() * FEATURE.direction
        hidden = layer.form.activate(layer.gates(x)) * functional.linear(x, layer.up_weight)
        return hidden * (gains @ layer.down_weight) / size
    if isinstance(layer, PlainLayer):
        return layer.hidden(layer.normalise(h, _EPS)) * (FEATURE.direction @ layer.out_weight)
    if isinstance(layer, BiasFreeLayer):
        layer = layer.with_biases
    assert isinstance(layer, SplicedLayer)
    x, fixed = layer.normalise(h, _EPS), layer.normalise(typical, _EPS)
    gate, up = (x, fixed) if gate_varies else (fixed, x)
    hidden = functional.silu(layer.gates(gate))
    hidden = hidden * functional.linear(up, layer.up_weight, layer.up_bias)
    return hidden * (FEATURE.direction @ layer.down_weight)


def _after_constants(layer: CompiledLayer, count: int) -> slice:
    """The neurons of the one part that a layer has beside constants, `count` where it is first.

    Sandwich layers begin with a probe for each jump and three neurons for constants, and end with
    the part's.
    """
    if isinstance(layer, SandwichLayer):
        return slice(len(layer.jump_gates) + 3, None)
    return slice(0, count)


def _alternating(written: Tensor) -> list[Tensor]:
    """What [n, neurons] the even neurons and the odd ones write together, shape [n] each."""
    return [written[:, 0::2].sum(dim=1), written[:, 1::2].sum(dim=1)]


def _ramp_width(layer: CompiledLayer) -> float:
    """Over how many standard deviations of p the gate of the jump goes from -c to c."""
    assert isinstance(layer, BiasFreeLayer | PlainLayer | SandwichLayer | SplicedLayer)
    c = layer.constants.get("half_gap", layer.constants["saturation"])
    full = layer.with_biases if isinstance(layer, BiasFreeLayer) else layer
    step = 0.05
    h = _moved(torch.tensor([_THRESHOLD, _THRESHOLD + step]))[1]
    low, high = full.gates(full.normalise(h, _EPS))[:, layer.jump_gates[0][1]].tolist()
    return 2 * float(c) * step / (high - low)


def _curves(
    x: Tensor, values: Sequence[Tensor], unit: float = FEATURE.deviation
) -> list[list[Point]]:
    """Curves through points, with values in multiples of a unit."""
    return [list(zip(x.tolist(), (y / unit).tolist(), strict=True)) for y in values]
