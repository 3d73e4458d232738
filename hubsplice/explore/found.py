"""What a search for features has found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hubsplice.features.references import SaeSource
from hubsplice.rendering.content import Line, Part, Table, Tone
from hubsplice.rendering.rendered import Rendered

BY_CHANCE = 0.05
"""The share of shuffled labels above which an AUC is said to be what chance gives."""


@dataclass(frozen=True)
class FoundFeature:
    """A feature that was found.

    Attributes:
        sae: which of the SAEs, as a number.
        origin: what messages call that SAE.
        place: where it reads the stream: a layer, or a layer's attention.
        feature: its index.
        score: what it is ranked by: nats for 1,000 tokens against neutral text, or the AUC of two
            sets.
        active: the share of the text's, or of the first set's, tokens on which it is active.
        elsewhere: the share of the neutral text's, or of the second set's.
        mean: its mean activation there, where it is active.
        largest: its largest there.
        texts: in how many of the examples it is active.
        effect: Hedges' g of two sets; None against neutral text.
        chance: the share of shuffled labels under which some feature does as well; None against
            neutral text.
        context: where it is largest, with the token marked.
        link: its page at Neuronpedia, if the registry knows of one.
    """

    sae: int
    origin: str
    place: str
    feature: int
    score: float
    active: float
    elsewhere: float
    mean: float
    largest: float
    texts: int
    effect: float | None
    chance: float | None
    context: str
    link: str | None


@dataclass(frozen=True, repr=False)
class Found(Rendered):
    """Features that matter for a text, or that tell two sets of texts apart.

    Attributes:
        base_model: the base, as a recipe names it.
        revision: its commit; None for a local folder.
        saes: the SAEs that were searched, as a recipe names them.
        examples: how many examples there were: of the text, or of the first set.
        tokens: how many tokens of them count.
        compared: what they were compared with.
        compared_examples: how many examples of that.
        compared_tokens: how many tokens of them.
        searched: how many features there are in all SAEs.
        features: the best, best first.
        warnings: what makes the result doubtful.
    """

    base_model: str
    revision: str | None
    saes: tuple[SaeSource, ...]
    examples: int
    tokens: int
    compared: str
    compared_examples: int
    compared_tokens: int
    searched: int
    features: tuple[FoundFeature, ...]
    warnings: tuple[str, ...] = ()

    @property
    def of_two_sets(self) -> bool:
        """Whether two sets were told apart."""
        return any(feature.effect is not None for feature in self.features)

    def content(self) -> Iterable[Part]:
        """The features, and what the numbers mean."""
        for warning in self.warnings:
            yield Line(f"warning: {warning}", Tone.CAUTION)
        yield from self.findings()

    def findings(self) -> Iterable[Part]:
        """The same without the warnings."""
        if not self.features:
            yield Line("No feature is more active here than there.", Tone.STRONG)
            return
        several = len(self.saes) > 1
        where = ("layer",) if several else ()
        columns = (
            *where,
            "feature",
            *(("AUC", "effect", "chance") if self.of_two_sets else ("nats",)),
            "active",
            "there",
            "mean",
            "largest",
            "texts",
        )
        rows = tuple(
            (
                *((one.place,) if several else ()),
                str(one.feature),
                *(
                    (f"{one.score:.3f}", f"{one.effect:.2f}", _chance(one.chance))
                    if one.effect is not None
                    else (f"{one.score:.1f}",)
                ),
                _share(one.active),
                _share(one.elsewhere),
                f"{one.mean:.3g}",
                f"{one.largest:.3g}",
                str(one.texts),
            )
            for one in self.features
        )
        yield Table(columns, rows, 0, self._title())
        yield Table.of_text(
            (*where, "feature", "largest in"),
            tuple(
                (*((one.place,) if several else ()), str(one.feature), one.context)
                for one in self.features
            ),
            "",
        )
        yield from (Line(one.link) for one in self.features if one.link)
        yield Line(self._legend(), Tone.FAINT)
        if self.doubt is not None:
            yield Line(self.doubt, Tone.CAUTION)

    @property
    def doubt(self) -> str | None:
        """Why the best feature may be one by chance."""
        if not self.of_two_sets or (self.features[0].chance or 0.0) <= BY_CHANCE:
            return None
        return (
            "No feature tells the two sets apart better than chance would among so many features; "
            "give more examples."
        )

    def _title(self) -> str:
        what = "the examples" if self.of_two_sets else "the text"
        return (
            f"{self.base_model}: {what} ({self.examples} examples, {self.tokens} tokens) against "
            f"{self.compared} ({self.compared_examples} examples, {self.compared_tokens} tokens), "
            f"{self.searched} features"
        )

    def _legend(self) -> str:
        if self.of_two_sets:
            return (
                "AUC: how often an example of the first set has the larger value. effect: Hedges' "
                "g. chance: how often shuffled sets give some feature as large an AUC. active, "
                "there: share of tokens in the first and in the second set."
            )
        return (
            "nats: what firing tells of the text, for 1,000 tokens; a feature that fires as often "
            "in any text tells nothing. active, there: share of tokens of the text and of the "
            "neutral text."
        )


def _share(share: float) -> str:
    return f"{share:.2%}" if share < 0.1 else f"{share:.1%}"


def _chance(chance: float | None) -> str:
    return "" if chance is None else f"{chance:.2g}"
