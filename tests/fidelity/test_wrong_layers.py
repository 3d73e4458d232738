"""No wrong layer passes. Each is compiled honestly, for another edit than it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from hubsplice.fidelity.measure import References, Subject, measure_fidelity
from hubsplice.fidelity.report import FidelityReport
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.acting import ActingText
from hubsplice.streams.calibration import SiteActivations
from hubsplice.text.sequences import TokenSequences
from tests.compiling.trained import LAYER, PLACE, Train, Trained
from tests.families.variants import Variant
from tests.fidelity.compiled import (
    FLOAT32,
    VARIANTS,
    Splice,
    enough,
    every_case,
    spliced,
)

KINDS = ["relu ablate", "jump ablate", "jump clamp where active", "gated steer", "steer"]


def quiet(step: str, done: int, total: int) -> None:
    """Nobody watches."""


def scaled(factor: float) -> Callable[[Site, SiteActivations], Site]:
    return lambda site, _: replace(
        site, terms=tuple(replace(t, function=t.function.scaled(factor)) for t in site.terms)
    )


def another_direction(site: Site, _: SiteActivations) -> Site:
    """The first edit writes along the direction of the one that is least like it."""
    first, *others = site.terms
    other = min(others, key=lambda term: abs(float(first.direction @ term.direction)))
    return replace(site, terms=(replace(first, direction=other.direction), *others))


def moved(deviations: float) -> Callable[[Site, SiteActivations], Site]:
    def threshold(site: Site, activations: SiteActivations) -> Site:
        def shifted(term: Term) -> Term:
            spread = float((activations.reference @ term.encoder).std())
            return replace(term, bias=term.bias - deviations * spread)

        return replace(site, terms=tuple(map(shifted, site.terms)))

    return threshold


def firing_elsewhere(site: Site, activations: SiteActivations) -> Site:
    """The first edit acts on as many other tokens as well: those farthest on the other side.

    There it writes what it typically writes where it should.
    """
    first, *others = site.terms
    (threshold,) = first.function.breakpoints
    p = activations.reference @ first.encoder
    acts = p + first.bias > threshold
    bias = float(p.quantile(float(acts.float().mean())))
    typical = first.function((p + first.bias)[acts].median().item())
    function = PiecewiseLinear.step(0.0).scaled(typical)
    extra = replace(first, label="another", encoder=-first.encoder, bias=bias, function=function)
    return replace(site, terms=(first, *others, extra))


def one_missing(site: Site, _: SiteActivations) -> Site:
    return replace(site, terms=site.terms[1:])


WRONG = {
    "silenced": scaled(0.0),
    "half": scaled(0.5),
    "1.1 times": scaled(1.1),
    "turned": scaled(-1.0),
    "another direction": another_direction,
    "threshold raised": moved(1.0),
    "threshold lowered": moved(-1.0),
    "fires elsewhere": firing_elsewhere,
    "one missing": one_missing,
}


@dataclass(frozen=True, eq=False)
class Judge:
    """An edit of a trained model, with all that a splice of it is compared with."""

    trained: Trained
    dtype: torch.dtype
    site: Site
    activations: SiteActivations
    references: References

    @staticmethod
    def of(trained: Trained, kind: str, dtype: torch.dtype) -> Judge:
        activations = trained.activations(dtype)
        site = enough(trained.site(kind, activations), trained.streams(trained.held_out)[FLOAT32])
        references = References.of(
            trained.folders[dtype], Intervention((site,)), text_of(trained.held_out), dtype, quiet
        )
        return Judge(trained, dtype, site, activations, references)

    def report(
        self, splice: Splice, site: Site, *, place: Place = PLACE, name: str = "spliced"
    ) -> FidelityReport:
        """The verdict on a layer that is compiled for `site` and stands at `place`."""
        base = self.trained.folders[self.dtype]
        folder, at = spliced(
            splice, base, replace(site, layer=place.layer), self.activations, self.dtype, name
        )
        subject = Subject(base, folder, Intervention((self.site,)), (at,), self.dtype)
        return measure_fidelity(
            subject,
            ActingText.drawn(text_of(self.trained.held_out)),
            require=None,
            progress=quiet,
            references=self.references,
        )


def text_of(ids: Tensor) -> TokenSequences:
    return TokenSequences(
        ids, torch.full(ids.shape[:1], ids.shape[1]), len(ids), "builtin", None, "", 0, 1, 0
    )


@pytest.fixture(scope="module")
def judge(train: Train) -> Callable[..., Judge]:
    @cache
    def made(index: int, kind: str, dtype: torch.dtype) -> Judge:
        return Judge.of(train(VARIANTS[index]), kind, dtype)

    return lambda variant, kind, dtype: made(VARIANTS.index(variant), kind, dtype)


def told(kind: str, dtype: torch.dtype) -> bool:
    """Whether tiny models can show such an edit.

    After two layers a stream has hardly any noise, and its tokens lie densely around a threshold:
    the ramp of a jump in bfloat16 is too wide for such a model.
    """
    return dtype is FLOAT32 or kind in ("relu ablate", "steer")


def fast(variant: Variant, kind: str, dtype: torch.dtype) -> bool:
    """Each construction and each kind and precision at least once."""
    if dtype is FLOAT32:
        return variant.family == "llama" or kind == "gated steer"
    return kind == "relu ablate" and variant.family in ("llama", "gemma2")


@pytest.mark.parametrize(("variant", "kind", "dtype"), every_case(KINDS, told, fast))
def test_a_right_layer_is_shown_and_no_wrong_one(
    judge: Callable[..., Judge], splice: Splice, variant: Variant, kind: str, dtype: torch.dtype
) -> None:
    judged = judge(variant, kind, dtype)
    right = judged.report(splice, judged.site)
    lines = [("right", right)]
    for name, wrong in WRONG.items():
        if kind == "steer" and ("threshold" in name or name == "fires elsewhere"):
            continue
        site = wrong(judged.site, judged.activations)
        lines.append((name, judged.report(splice, site, name=name.replace(" ", "-"))))
    lines.append(
        ("elsewhere", judged.report(splice, judged.site, place=Place(LAYER + 1), name="o"))
    )
    assert right.outcome == "shown", right.verdict
    assert {name for name, report in lines if report.outcome == "shown"} == {"right"}
