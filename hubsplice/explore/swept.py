"""What a sweep found: for each strength what is gained, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hubsplice.explore.intervals import Mean
from hubsplice.rendering.content import Code, Line, Part, Table, Tone
from hubsplice.rendering.rendered import Rendered

Want = Literal["more", "less"]

_WIDTH, _HEIGHT = 56, 10
_LONGEST = 18
"""Characters of a score's name in a heading: as many as an interval has."""
_REPEATING = 0.8
"""Of the base's share of word triples that are not repeated; below it answers go in circles."""


@dataclass(frozen=True)
class SideEffect:
    """The first figure of a task of lm-evaluation-harness.

    Attributes:
        task: the task.
        metric: the figure's name.
        value: the figure.
        stderr: the harness's own standard error; None where it has none.
    """

    task: str
    metric: str
    value: float
    stderr: float | None


@dataclass(frozen=True)
class Point:
    """One strength at one place.

    Attributes:
        name: the strength; `base` for the model without the edit.
        layer: the layer, where layers were swept.
        scores: for each scorer the mean over prompts; None where no answer counts.
        divergence: KL(hook ‖ base) on neutral text, in nats a token, over sequences.
        perplexity: of the edited model on neutral text.
        distinct: the share of word triples of an answer that are not repeated in it.
        length: words of an answer.
        side_effects: the tasks' figures, in the order in which they were named.
        front: whether no other point gains more for less divergence.
        chosen: whether this is the one that is recommended.
    """

    name: str
    layer: int | None
    scores: tuple[Mean | None, ...]
    divergence: Mean
    perplexity: float
    distinct: Mean | None
    length: Mean
    side_effects: tuple[SideEffect, ...] = ()
    front: bool = False
    chosen: bool = False

    @property
    def target(self) -> Mean | None:
        """The first score, which the choice goes by."""
        return self.scores[0]

    @property
    def title(self) -> str:
        """The strength, with its layer where layers were swept."""
        return self.name if self.layer is None else f"{self.name} (layer {self.layer})"


@dataclass(frozen=True, repr=False)
class Sweep(Rendered):
    """Strengths of one edit, compared.

    Attributes:
        edit: the field that was swept, such as `splices[0].edits[0].to`.
        label: what the edit is called.
        scorers: the scores' names; the first is the target.
        want: whether more or less of the target is wanted.
        points: the base's first, then the strengths in their order.
        prompts: how many prompts there are.
        neutral_tokens: how many tokens of neutral text.
        answers: the file that holds the answers.
        warnings: what may not be meant.
    """

    edit: str
    label: str
    scorers: tuple[str, ...]
    want: Want
    points: tuple[Point, ...]
    prompts: int
    neutral_tokens: int
    answers: str
    warnings: tuple[str, ...] = ()

    @property
    def chosen(self) -> Point | None:
        """The recommended strength; None where none does better than the base."""
        return next((point for point in self.points if point.chosen), None)

    @property
    def no_room(self) -> str | None:
        """Why no strength could have done better than the base on these prompts; None if one
        could have."""
        base = self.points[0].target
        if base is None or base.value != (0.0 if self.want == "less" else 1.0):
            return None
        often = "never" if self.want == "less" else "always"
        return (
            f"The base {often} does it on these prompts, so {self.want} of it can't be shown; "
            "find prompts on which it differs."
        )

    @property
    def price(self) -> str | None:
        """What the recommended strength does to the answers themselves; None for nothing."""
        if self.chosen is None:
            return None
        base, found = self.points[0].distinct, self.chosen.distinct
        if base is None or found is None or found.value >= _REPEATING * base.value:
            return None
        return (
            f"At {self.chosen.name} answers repeat themselves: distinct is {found.value:.2f}, the "
            f"base's {base.value:.2f}. Read some with `hubsplice try`; a smaller strength may be "
            "better."
        )

    @property
    def left_out(self) -> str | None:
        """Which strengths could not be recommended, and by which rule; None for none."""
        better = _better(self.points, self.want)
        if not better:
            return None
        base, *tried = self.points
        best = _best(better, self.want)
        towards, side = ("up", "below") if self.want == "more" else ("down", "above")
        end = "" if base.target is None else f", {towards} to {abs(_reach(base, self.want)):.2g}"
        rules = (
            ("no answer counts", [p for p in tried if p.target is None]),
            (
                f"within the base's interval{end}",
                [p for p in tried if p.target is not None and p not in better],
            ),
            (
                f"the interval ends {side} the best, {abs(best):.3g}",
                [p for p in better if _reach(p, self.want) < best],
            ),
        )
        said = [
            f"{', '.join(point.title for point in points)} ({rule})"
            for rule, points in rules
            if points
        ]
        return f"Left out: {'; '.join(said)}." if said else None

    def content(self) -> Iterable[Part]:
        """The strengths, a plot, and the choice."""
        for warning in self.warnings:
            yield Line(f"warning: {warning}", Tone.CAUTION)
        yield from self.findings()

    def findings(self) -> Iterable[Part]:
        """The same without the warnings."""
        layers = any(point.layer is not None for point in self.points)
        yield Table(
            (
                "",
                "strength",
                *(("layer",) if layers else ()),
                *map(_short, self.scorers),
                "KL",
                "perplexity",
                "distinct",
                "words",
                *(f"{found.task} {found.metric}" for found in self.points[0].side_effects),
            ),
            tuple(
                (
                    ("→" if point.chosen else "") + ("•" if point.front else ""),
                    point.name,
                    *(("" if point.layer is None else str(point.layer),) if layers else ()),
                    *map(_interval, point.scores),
                    _interval(point.divergence),
                    f"{point.perplexity:.4g}",
                    "" if point.distinct is None else f"{point.distinct.value:.2f}",
                    f"{point.length.value:.0f}",
                    *map(_with_error, point.side_effects),
                )
                for point in self.points
            ),
            2,
            f"{self.edit} ({self.label}): {self.prompts} prompts, {self.neutral_tokens} tokens of "
            f"neutral text; {self.want} of {_short(self.scorers[0])} is wanted",
        )
        yield Code(plot(self.points))
        yield Line(
            "•: no other strength gains more for less. KL: of the edited model from the base, in "
            "nats a token of neutral text. distinct: share of word triples of an answer that are "
            "not repeated in it. In brackets: 95% intervals, by prompt and by sequence."
            + (" ±: the harness's standard error." if self.points[0].side_effects else ""),
            Tone.FAINT,
        )
        if self.chosen is None:
            yield Line(
                self.no_room or "No strength does better than the base beyond its interval.",
                Tone.CAUTION,
            )
        else:
            yield Line(
                f"→ {self.chosen.name}: the least divergence among the strengths that can't be "
                "told from the best.",
                Tone.STRONG,
            )
            if self.left_out is not None:
                yield Line(self.left_out)
            if self.price is not None:
                yield Line(self.price, Tone.CAUTION)


def _with_error(found: SideEffect) -> str:
    return f"{found.value:.3g}" + ("" if found.stderr is None else f" ± {found.stderr:.2g}")


def judged(points: tuple[Point, ...], want: Want) -> tuple[Point, ...]:
    """The points with those on the front marked, and the choice.

    The choice has the least divergence of all whose target's interval reaches the best mean, and
    its target is beyond the interval of the base.
    """
    known = [point for point in points if point.target is not None]

    def gain(point: Point) -> float:
        return _gain(point, want)

    front = {
        id(point)
        for point in known
        if not any(
            gain(other) >= gain(point)
            and other.divergence.value <= point.divergence.value
            and (gain(other), -other.divergence.value) != (gain(point), -point.divergence.value)
            for other in known
        )
    }
    better = _better(points, want)
    best = _best(better, want)
    near = [point for point in better if _reach(point, want) >= best]
    chosen = min(near, key=lambda point: point.divergence.value, default=None)
    return tuple(
        replace(point, front=id(point) in front, chosen=point is chosen) for point in points
    )


def _better(points: Sequence[Point], want: Want) -> list[Point]:
    """The strengths whose target is beyond the interval of the base."""
    base, *tried = points
    return [
        point
        for point in tried
        if point.target is not None
        and (base.target is None or _gain(point, want) > _reach(base, want))
    ]


def _best(better: Sequence[Point], want: Want) -> float:
    return max((_gain(point, want) for point in better), default=0.0)


def _gain(point: Point, want: Want) -> float:
    """The target, with the sign that makes more of it better."""
    assert point.target is not None
    return point.target.value if want == "more" else -point.target.value


def _reach(point: Point, want: Want) -> float:
    """The better end of its interval, with the same sign."""
    assert point.target is not None
    return point.target.high if want == "more" else -point.target.low


def plot(points: tuple[Point, ...]) -> str:
    """The target against the divergence as text: a letter for each point, `•` on the front."""
    known = [(i, p, p.target) for i, p in enumerate(points) if p.target is not None]
    if not known:
        return ""
    low, high = min(t.value for _, _, t in known), max(t.value for _, _, t in known)
    most = max(p.divergence.value for _, p, _ in known) or 1.0
    grid = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for i, point, target in known:
        # On a scale of square roots, since a few strengths diverge far more than the rest.
        across = round((_WIDTH - 1) * math.sqrt(max(point.divergence.value, 0.0) / most))
        share = (target.value - low) / (high - low) if high > low else 0.0
        grid[_HEIGHT - 1 - round((_HEIGHT - 1) * share)][across] = _letter(i)
    lines = [
        f"{high if row == 0 else low:>8.3g} │{''.join(cells).rstrip()}"
        if row in (0, _HEIGHT - 1)
        else f"{'':>8} │{''.join(cells).rstrip()}"
        for row, cells in enumerate(grid)
    ]
    names = "  ".join(f"{_letter(i)} {point.title}" for i, point, _ in known)
    return "\n".join(
        [*lines, f"{'':>8} └{'─' * _WIDTH}", f"{'√KL':>8}  0{most:>{_WIDTH - 1}.3g}", "", names]
    )


def _letter(number: int) -> str:
    """What stands for a point in a plot: 0 for the base, then letters."""
    letters = "0abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return letters[number] if number < len(letters) else "*"


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _interval(found: Mean | None) -> str:
    if found is None:
        return ""
    return f"{found.value:.3g} [{found.low:.2g}, {found.high:.2g}]"
