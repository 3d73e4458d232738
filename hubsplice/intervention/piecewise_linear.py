"""φ: piecewise-linear scalar functions, which may jump."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True)
class Kink:
    """A place where φ bends or jumps: `slope_change·relu(p - at) + jump·1[p > at]`."""

    at: float
    slope_change: float
    jump: float


@dataclass(frozen=True)
class PiecewiseLinear:
    """A piecewise-linear scalar function, which may jump.

    On the i-th interval the value is `slopes[i]·p + intercepts[i]`. A breakpoint belongs to
    the interval on its left, as SAE thresholds do (a JumpReLU feature is active for p > θ).
    """

    breakpoints: tuple[float, ...]
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]

    def __post_init__(self) -> None:
        pieces = len(self.breakpoints) + 1
        if len(self.slopes) != pieces or len(self.intercepts) != pieces:
            raise ValueError(f"{pieces - 1} breakpoints need {pieces} slopes and intercepts")
        if any(b <= a for a, b in pairwise(self.breakpoints)):
            raise ValueError(f"breakpoints must increase: {self.breakpoints}")
        if not all(map(math.isfinite, (*self.breakpoints, *self.slopes, *self.intercepts))):
            raise ValueError("breakpoints, slopes and intercepts must be finite")

    @staticmethod
    def constant(value: float) -> PiecewiseLinear:
        """The function with one value everywhere."""
        return PiecewiseLinear((), (0.0,), (value,))

    @staticmethod
    def linear(slope: float, intercept: float = 0.0) -> PiecewiseLinear:
        """The function `slope·p + intercept`."""
        return PiecewiseLinear((), (slope,), (intercept,))

    @staticmethod
    def relu(threshold: float = 0.0) -> PiecewiseLinear:
        """`relu(p - threshold)`."""
        return PiecewiseLinear((threshold,), (0.0, 1.0), (0.0, -threshold))

    @staticmethod
    def jump_relu(threshold: float) -> PiecewiseLinear:
        """`p·1[p > threshold]`, and `relu(p)` where the threshold is below zero."""
        return PiecewiseLinear((max(threshold, 0.0),), (0.0, 1.0), (0.0, 0.0))

    @staticmethod
    def step(threshold: float, height: float = 1.0) -> PiecewiseLinear:
        """`height·1[p > threshold]`."""
        return PiecewiseLinear((threshold,), (0.0, 0.0), (0.0, height))

    def __call__(self, p: float) -> float:
        """The value at one point."""
        piece = sum(p > t for t in self.breakpoints)
        return self.slopes[piece] * p + self.intercepts[piece]

    def __add__(self, other: PiecewiseLinear) -> PiecewiseLinear:
        points = tuple(sorted({*self.breakpoints, *other.breakpoints}))
        slopes, intercepts = [], []
        for left in (-math.inf, *points):
            mine, theirs = self._piece_right_of(left), other._piece_right_of(left)
            slopes.append(mine[0] + theirs[0])
            intercepts.append(mine[1] + theirs[1])
        return PiecewiseLinear(points, tuple(slopes), tuple(intercepts)).simplified()

    def scaled(self, factor: float) -> PiecewiseLinear:
        """`factor` times this function."""
        return replace(
            self,
            slopes=tuple(factor * s for s in self.slopes),
            intercepts=tuple(factor * i for i in self.intercepts),
        ).simplified()

    def shifted(self, by: float) -> PiecewiseLinear:
        """This function of p - by."""
        return PiecewiseLinear.linear(1.0, -by).then(self)

    def above(self, edge: float) -> PiecewiseLinear:
        """This function where p > edge, and zero elsewhere."""
        first = sum(t <= edge for t in self.breakpoints)
        return PiecewiseLinear(
            (edge, *self.breakpoints[first:]),
            (0.0, *self.slopes[first:]),
            (0.0, *self.intercepts[first:]),
        ).simplified()

    def then(self, outer: PiecewiseLinear) -> PiecewiseLinear:
        """The composition `outer(self(p))`.

        Where this function falls through a jump of `outer`, the value at that single point is
        taken from the other side; no real stream hits it.
        """
        points: list[float] = []
        slopes: list[float] = []
        intercepts: list[float] = []
        edges = (-math.inf, *self.breakpoints, math.inf)
        for (low, high), slope, intercept in zip(
            pairwise(edges), self.slopes, self.intercepts, strict=True
        ):
            preimages = [(y - intercept) / slope for y in outer.breakpoints] if slope else []
            inner = sorted({t for t in preimages if low < t < high})
            for left, right in pairwise((low, *inner, high)):
                # Which piece of outer applies is counted, not probed at a point in between:
                # two breakpoints may be neighbouring floats.
                if slope > 0:
                    piece = sum(t <= left for t in preimages)
                elif slope < 0:
                    piece = sum(t >= right for t in preimages)
                else:
                    piece = sum(intercept > y for y in outer.breakpoints)
                slopes.append(outer.slopes[piece] * slope)
                intercepts.append(outer.slopes[piece] * intercept + outer.intercepts[piece])
                points.append(right)
        return PiecewiseLinear(tuple(points[:-1]), tuple(slopes), tuple(intercepts)).simplified()

    def simplified(self) -> PiecewiseLinear:
        """The same function without breakpoints at which nothing changes."""
        points: list[float] = []
        slopes, intercepts = [self.slopes[0]], [self.intercepts[0]]
        for t, slope, intercept in zip(
            self.breakpoints, self.slopes[1:], self.intercepts[1:], strict=True
        ):
            if slope != slopes[-1] or intercept != intercepts[-1]:
                points.append(t)
                slopes.append(slope)
                intercepts.append(intercept)
        return PiecewiseLinear(tuple(points), tuple(slopes), tuple(intercepts))

    @property
    def kinks(self) -> tuple[Kink, ...]:
        """The bends and jumps that, added to the leftmost piece, give this function."""
        found = []
        for i, t in enumerate(self.breakpoints):
            summands = (
                self.slopes[i + 1] * t,
                self.intercepts[i + 1],
                -self.slopes[i] * t,
                -self.intercepts[i],
            )
            jump = math.fsum(summands)
            # A difference this small is the rounding of the summands, as where a composition's
            # breakpoint is the solution of an equation, and not a jump.
            scale = max(map(abs, summands))
            found.append(
                Kink(
                    t,
                    self.slopes[i + 1] - self.slopes[i],
                    0.0 if abs(jump) <= 1e-9 * scale else jump,
                )
            )
        return tuple(found)

    @property
    def has_jump(self) -> bool:
        """Whether the function is discontinuous anywhere."""
        return any(kink.jump for kink in self.kinks)

    def _piece_right_of(self, edge: float) -> tuple[float, float]:
        """Slope and intercept of the piece that begins at `edge`, or holds there."""
        piece = sum(t <= edge for t in self.breakpoints)
        return self.slopes[piece], self.intercepts[piece]
