"""What a build says at its end: what was built, the verdict, one answer, and what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hubsplice.card.phrases import sentence
from hubsplice.checkpoint.companions import CARD, MANIFEST
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.fidelity import summary
from hubsplice.fidelity.report import REPORT, FidelityReport
from hubsplice.files.space import readable_size
from hubsplice.rendering.content import Code, Line, Part, Tone

if TYPE_CHECKING:
    from hubsplice.building.build import BuildResult

_TONES = {"shown": Tone.GOOD, "fails": Tone.BAD, "not shown": Tone.CAUTION}


def build_summary(result: BuildResult) -> Iterator[Part]:
    """One screen on a build; the tables are in its report and on its card."""
    manifest = read_manifest(result.folder / MANIFEST)
    name = manifest.base.name.split("/")[-1]
    after = len(manifest.layer_map)
    size = sum(digest.size for digest in manifest.files.values())
    what = (
        f"{after - len(manifest.layers)} layers became {after}"
        if manifest.carrier is None
        else f"an adapter for {manifest.carrier.name}"
    )
    yield Line(f"Built {result.folder}: {what}, {readable_size(size)}", Tone.STRONG)
    yield Line(sentence(name, (term for layer in manifest.edits for term in layer.terms)))
    yield Line()
    if result.report is None:
        yield Line("The fidelity was not measured.", Tone.CAUTION)
        yield from (Line(str(amounts)) for amounts in result.amounts)
    else:
        yield from measured_summary(result.report)
    yield from (Line(str(condition)) for condition in result.conditions)
    yield Line()
    card = result.folder / CARD
    if manifest.carrier is None:
        folder = shlex.quote(str(result.folder))
        base = f" --base {shlex.quote(str(result.local_base))}" if result.local_base else ""
        yield Line(f"Next: read the card, {card}. Then")
        yield Code(
            f"  hubsplice evaluate {folder}{base} --prompts FILE --score KIND=…\n"
            f"  hubsplice serve {folder}\n"
            f"  hubsplice publish {folder} --repo-id YOU/NAME"
        )
    else:
        yield Line(f"The card is {card}.")
    figures = f"All figures are in {REPORT}, and " if result.report else ""
    yield Line(f"{figures}--details prints all tables.", Tone.FAINT)


def measured_summary(report: FidelityReport) -> Iterator[Part]:
    """The verdict, what the edit does, and one prompt before and after."""
    yield Line(report.verdict, _TONES[report.outcome])
    if report.outcome == "not shown":
        yield Line(
            "Text on which the edit acts would show it: raise `fidelity.tokens` or `fidelity.scan` "
            "in the recipe, or give such text as its `prompts`."
        )
    if report.effect is not None:
        yield Line(summary.effect_sentence(report.effect))
        warning = summary.effect_warning(report.effect)
        if warning is not None:
            yield Line(warning, Tone.CAUTION)
    if report.answers is not None and report.answers.prompts:
        shown = report.answers.prompts[0]
        yield Line()
        yield Line(f"You ask: {_one_line(shown.prompt)}", Tone.STRONG)
        yield Line(f"Before:  {_one_line(shown.greedy.base)}")
        yield Line(f"After:   {_one_line(shown.greedy.edited)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
