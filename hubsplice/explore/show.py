"""One feature: where it is active, how often and how strongly, and what it writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from hubsplice.explore.bench import Bench
from hubsplice.explore.contexts import AFTER, BEFORE, context
from hubsplice.explore.examples import Example
from hubsplice.explore.lens import Lens, logit_lens
from hubsplice.explore.passes import Reader, Seen
from hubsplice.features.references import SaeSource
from hubsplice.rendering.content import Code, Line, Part, Table, Tone
from hubsplice.rendering.rendered import Rendered
from hubsplice.terminal import Progress

_BINS = 10
_WIDEST = 30


@dataclass(frozen=True)
class Context:
    """A text in which the feature is active.

    Attributes:
        activation: its largest activation there.
        text: what stands around that token, which is marked.
    """

    activation: float
    text: str


@dataclass(frozen=True)
class Bin:
    """A bar of the histogram: how many tokens have an activation from `low` to `high`."""

    low: float
    high: float
    tokens: int


@dataclass(frozen=True, repr=False)
class ShownFeature(Rendered):
    """What one feature does.

    Attributes:
        base_model: the base, as a recipe names it.
        sae: the SAE, as a recipe names it.
        origin: what messages call the SAE.
        place: where it reads the stream.
        feature: the index.
        tokens: how many tokens were read.
        active: on how many of them it is active.
        mean: its mean activation where it is active.
        largest: its largest.
        histogram: of its activations where it is active.
        contexts: the texts in which it is largest, the largest first.
        lens: the tokens that its direction promotes and suppresses.
        link: its page at Neuronpedia, if the registry knows of one.
        warnings: doubts about the SAE.
    """

    base_model: str
    sae: SaeSource
    origin: str
    place: str
    feature: int
    tokens: int
    active: int
    mean: float
    largest: float
    histogram: tuple[Bin, ...]
    contexts: tuple[Context, ...]
    lens: Lens
    link: str | None
    warnings: tuple[str, ...] = ()

    def content(self) -> Iterable[Part]:
        """All of it, the contexts first."""
        for warning in self.warnings:
            yield Line(f"warning: {warning}", Tone.CAUTION)
        yield from self.findings()

    def findings(self) -> Iterable[Part]:
        """The same without the warnings."""
        yield Line(
            f"Feature {self.feature} of {self.origin}, after layer {self.place}", Tone.STRONG
        )
        if not self.active:
            yield Line(
                f"It is never active on {self.tokens} tokens; give text on which it may be "
                "(--text), or read more (--tokens).",
                Tone.CAUTION,
            )
        else:
            yield Line(
                f"Active on {self.active} of {self.tokens} tokens "
                f"({self.active / self.tokens:.3%}), mean {self.mean:.3g} there, largest "
                f"{self.largest:.3g}."
            )
            yield Table(
                ("activation", "where it is largest"),
                tuple((f"{found.activation:.3g}", found.text) for found in self.contexts),
                2,
            )
            yield Code(self._bars())
        yield Table.of_text(
            ("promotes", "suppresses"),
            tuple(
                (_token(up), _token(down))
                for up, down in zip(self.lens.promoted, self.lens.suppressed, strict=True)
            ),
            "What its direction does to the next token, in standard deviations of the vocabulary",
        )
        if self.link:
            yield Line(self.link)

    def _bars(self) -> str:
        most = max(bar.tokens for bar in self.histogram)
        return "\n".join(
            f"{bar.low:>9.3g} to {bar.high:<9.3g} {_bar(bar.tokens / most)} {bar.tokens}"
            for bar in self.histogram
        )


def _bar(share: float) -> str:
    return f"{'▇' * round(_WIDEST * share):<{_WIDEST}}"


def show_feature(
    bench: Bench, feature: int, examples: Sequence[Example], *, top: int, progress: Progress
) -> ShownFeature:
    """Read some text and say what a feature of the first SAE does in it.

    Raises:
        RecipeError: the SAE has no such feature.
        UnsupportedError: the model's final norm is not known.
    """
    placed = bench.saes[0]
    placed.sae.config.require_feature(feature)
    lens = logit_lens(bench.model, bench.tokenizer, placed.sae.module.W_dec.detach()[feature])
    found: list[torch.Tensor] = []
    where: list[tuple[torch.Tensor, torch.Tensor]] = []

    def see(seen: Seen) -> None:
        found.append(seen.activations[:, feature])
        where.append((seen.example, seen.position))

    Reader(bench.model, [placed]).read(
        examples, see, lambda done, total: progress("reading text", done, total)
    )
    values = torch.cat(found)
    example = torch.cat([e for e, _ in where])
    position = torch.cat([p for _, p in where])
    active = values[values != 0]
    return ShownFeature(
        base_model=bench.base_model,
        sae=placed.source,
        origin=placed.sae.config.origin,
        place=str(placed.place),
        feature=feature,
        tokens=len(values),
        active=len(active),
        mean=float(active.mean()) if len(active) else 0.0,
        largest=float(active.max()) if len(active) else 0.0,
        histogram=_histogram(active),
        contexts=tuple(_contexts(bench, examples, values, example, position, top)),
        lens=lens,
        link=placed.link(feature),
        warnings=bench.warnings,
    )


def _contexts(
    bench: Bench,
    examples: Sequence[Example],
    values: torch.Tensor,
    example: torch.Tensor,
    position: torch.Tensor,
    top: int,
) -> Iterable[Context]:
    found: list[tuple[float, int, int]] = []
    again: list[tuple[float, int, int]] = []
    for i in values.argsort(descending=True).tolist():
        if values[i] == 0 or len(found) == top:
            break
        one = (float(values[i]), int(example[i]), int(position[i]))
        if all(number != one[1] for _, number, _ in found):
            found.append(one)
        elif len(again) < top and _is_elsewhere(one, (*found, *again)):
            again.append(one)
    # Of a single long text, other places are shown too.
    for value, number, place in sorted((*found, *again[: top - len(found)]), reverse=True):
        yield Context(value, context(bench.tokenizer, examples[number], place))


def _is_elsewhere(one: tuple[float, int, int], others: Iterable[tuple[float, int, int]]) -> bool:
    """Whether a token is in no text that is shown around another one."""
    return all(
        number != one[1] or abs(place - one[2]) > BEFORE + AFTER for _, number, place in others
    )


def _histogram(active: torch.Tensor) -> tuple[Bin, ...]:
    if not len(active):
        return ()
    low, high = float(active.min()), float(active.max())
    if low == high:
        return (Bin(low, high, len(active)),)
    counts = torch.histc(active, _BINS, low, high).long().tolist()
    width = (high - low) / _BINS
    return tuple(Bin(low + i * width, low + (i + 1) * width, n) for i, n in enumerate(counts))


def _token(found: tuple[str, float]) -> str:
    return f"{found[0]!r} {found[1]:+.1f}"
