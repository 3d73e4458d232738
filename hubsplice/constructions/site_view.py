"""Calibration as an inserted MLP sees it, and the read-outs fitted to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hubsplice.constructions.decomposition import Affine, offsets
from hubsplice.constructions.readout import ReadOut, RidgeFitter
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations


class Frame(Protocol):
    """An inserted layer up to its MLP: attention adds a constant, and a norm divides."""

    @property
    def constant(self) -> Tensor:
        """What attention adds to the stream, shape [d]."""

    def normalise(self, h: Tensor, eps: float) -> Tensor:
        """What the MLP reads, from the stream h [..., d] at the site, in the layer's dtype."""

    def divisor(self, h: Tensor, eps: float) -> Tensor:
        """What the norm divides by, from the stream h [..., d] at the site, float64."""


@dataclass(frozen=True, eq=False)
class SiteView:
    """What the MLP of an inserted layer reads on the calibration text.

    Attributes:
        activations: calibration at the site.
        bias: what the layer adds to the stream before its norm, shape [d].
        x: the norm's output at the serving precision, shape [tokens, d], float64.
        r: what the norm divided by, from the reference stream, shape [tokens], float64.
        is_sink: which tokens must stay untouched, shape [tokens].
        fitter: of read-outs from x on the other tokens.
        one: where neurons have no biases, what they are made from: weights [d] whose product with
            x is nearly 1.
    """

    activations: SiteActivations
    bias: Tensor
    x: Tensor
    r: Tensor
    is_sink: Tensor
    fitter: RidgeFitter
    one: Tensor | None = None

    @staticmethod
    def of(
        site: Site,
        activations: SiteActivations,
        frame: Frame,
        *,
        damping: float,
        intercept: bool = True,
    ) -> SiteView:
        """The view of a site.

        Args:
            site: which tokens the edit changes, and which are sinks.
            activations: calibration there.
            frame: the layer, of which no neurons are needed.
            damping: ridge strength of the read-outs.
            intercept: whether read-outs may have a bias.
        """
        x = frame.normalise(activations.serving, activations.eps).double()
        r = frame.divisor(activations.reference, activations.eps)
        is_sink = site.is_sink(activations.reference)
        # Sinks would cost the read-outs most of their precision (what marks a sink is what best
        # tells r on other tokens), so a guard takes back what the layer writes there.
        energy = site.delta(activations.reference).double().pow(2).sum(dim=-1)[~is_sink]
        share = energy / energy.mean().clamp(min=1e-30)
        # As many tokens as share the energy; fewer than there are channels tell too little alone.
        sharing = len(share) / share.square().mean().clamp(min=1.0)
        weights = 0.1 + x.shape[1] / sharing + share
        weights = weights.clamp(max=float(weights.quantile(0.999))) / r[~is_sink].pow(2)
        fitter = RidgeFitter(x[~is_sink], weights, damping=damping, intercept=intercept)
        return SiteView(activations, frame.constant, x, r, is_sink, fitter)

    @property
    def dtype(self) -> torch.dtype:
        """The serving precision."""
        return self.bias.dtype

    @property
    def has_sinks(self) -> bool:
        """Whether any token of the calibration text must stay untouched."""
        return bool(self.is_sink.any())

    def read_out(self, target: Tensor) -> ReadOut:
        """A read-out from x of a quantity given per token, fitted where the token is no sink."""
        return self.fitter.fit(target[~self.is_sink])

    def scale_of(self, normalization: Normalization) -> Tensor:
        """s(h) of every token, shape [tokens]."""
        return normalization.apply(self.activations.reference.double())[1][:, 0]

    def reference_values(self, affines: list[Affine]) -> Tensor:
        """a(h)/r of every affine from the reference stream, shape [tokens, n]."""
        encoders = torch.stack([a.encoder for a in affines], dim=1)
        h = self.activations.reference.double()
        weights = torch.tensor([a.mean_weight for a in affines]).double()
        values = h @ encoders + torch.tensor([a.mean_constant for a in affines]).double()
        values += (h.mean(dim=-1, keepdim=True) - self.typical_mean) * weights
        for kind in {a.normalization for a in affines}:
            values += self.scale_of(kind)[:, None] * offsets(affines, kind)
        return values / self.r[:, None]

    def rows(self, affines: list[Affine]) -> tuple[Tensor, Tensor]:
        """Rows [n, d] and biases [n] whose product with [x, 1] is a(h)/r.

        What the added bias leaves of a threshold is read out of x.
        """
        encoders = torch.stack([a.encoder for a in affines])
        weights, biases = encoders.clone(), torch.zeros(len(affines)).double()
        constants = torch.tensor([a.mean_constant for a in affines]).double()
        corrections = [(Normalization.NONE, constants - encoders @ self.bias.double())]
        corrections += [
            (kind, offsets(affines, kind)) for kind in {a.normalization for a in affines}
        ]
        for kind in Normalization:
            amount = sum((c for k, c in corrections if k is kind), torch.zeros_like(biases))
            if amount.any():
                readout = self.read_out(self.scale_of(kind) / self.r)
                weights += amount[:, None] * readout.weight.double()
                biases += amount * readout.bias
        means = torch.tensor([a.mean_weight for a in affines]).double()
        if means.any():
            deviation = self.activations.reference.double().mean(dim=-1) - self.typical_mean
            readout = self.read_out(deviation / self.r)
            weights += means[:, None] * readout.weight.double()
            biases += means * readout.bias
        return weights, biases

    def arguments(self, weights: Tensor, biases: Tensor) -> Tensor:
        """What neurons of these rows [n, d] and biases [n] get in the layer, [tokens, n]."""
        if self.one is not None:
            weights, biases = weights + biases[:, None] * self.one, torch.zeros_like(biases)
        return self.x @ weights.to(self.dtype).double().T + biases

    @property
    def typical_mean(self) -> float:
        """The mean of all channels of all tokens that are no sinks."""
        return float(self.activations.reference.double()[~self.is_sink].mean())
