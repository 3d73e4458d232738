"""Terms of an edit, made to act where its condition holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hubsplice.edits.lookup import Sources
from hubsplice.edits.opening import Opening
from hubsplice.edits.when import When
from hubsplice.errors import UnsupportedError
from hubsplice.intervention.condition import Condition
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Term


def conditioned(
    terms: Sequence[Term], when: When, read_feature: int | None, sources: Sources
) -> tuple[Term, ...]:
    """The same terms where the condition holds, in the plainest form.

    What is plain stays a ridge function: a condition on the feature that a term reads is a part of
    its φ, and a constant under one gate is a step of the gate's read-out.

    Args:
        terms: what the edit does at every token.
        when: where it acts.
        read_feature: the SAE feature whose pre-activation the terms read, if they read one.
        sources: what the condition looks up.

    Raises:
        HubspliceError: the condition can't be looked up, or the terms belong to an SAE that
            normalises its input.
    """
    openings = when.openings(sources)
    where = when.words(openings)
    return tuple(_conditioned(term, openings, when.needed, read_feature, where) for term in terms)


def _conditioned(
    term: Term, openings: Sequence[Opening], needed: int, read_feature: int | None, where: str
) -> Term:
    if term.normalization is not Normalization.NONE:
        raise UnsupportedError(
            f"{term.label} is of an SAE that normalises its input ({term.normalization.value}), "
            "and writes at each token's own scale: no layer can tell that scale and a condition "
            "at once; leave `when` out, or use a vector",
            field="when",
        )
    term = replace(term, label=f"{term.label} where {where}")
    if needed == len(openings) and read_feature is not None:
        for opening in openings:
            if opening.feature == read_feature:
                function = term.function.above(opening.read_out.threshold)
                term, needed = replace(term, function=function), needed - 1
        openings = [opening for opening in openings if opening.feature != read_feature]
    gates = tuple(opening.read_out for opening in openings)
    if not gates:
        return term
    if len(gates) == 1 and not term.encoder.any():
        height = term.function(term.bias)
        (gate,) = gates
        return replace(
            term,
            encoder=gate.encoder,
            bias=gate.bias,
            function=PiecewiseLinear.step(gate.threshold, height),
        )
    return replace(term, condition=Condition(gates, needed))
