"""What the builds of checkpoints and of adapters do alike, and in part a later measurement too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubsplice.building.asking import with_answers
from hubsplice.building.findings import Findings
from hubsplice.building.held_out import held_out_text
from hubsplice.building.reproduction import REPRODUCTION, write_reproduction
from hubsplice.card.words import require_words, write_words
from hubsplice.compiling.compiler import Compiled
from hubsplice.compiling.open_plan import OpenPlan
from hubsplice.errors import RecipeError
from hubsplice.fidelity.measure import Subject, measure_fidelity
from hubsplice.fidelity.report import REPORT, FidelityReport, write_report
from hubsplice.fidelity.verdict import refuse_no_ratio
from hubsplice.files.digest import FileDigest, digest_file
from hubsplice.recipe.models import Recipe
from hubsplice.streams.acting import ActingText
from hubsplice.terminal import Progress


def required_fidelity(recipe: Recipe, given: float | None, *, measure: bool) -> float | None:
    """The largest ratio that passes; refuses early what would only fail at the end.

    Args:
        recipe: what is built.
        given: another ratio than the recipe's, or None.
        measure: whether the result is measured.

    Raises:
        RecipeError: it is no ratio, or can't be met; or the card can't show a file.
    """
    require = recipe.fidelity.require if given is None else given
    refuse_no_ratio(require)
    if require is not None and not measure:
        raise RecipeError(f"fidelity.require: {require:g} can't be met without measuring")
    require_words(recipe.card)
    return require


def measured(
    subject: Subject,
    text: ActingText,
    recipe: Recipe,
    tokenizer: Any,
    findings: Findings,
    *,
    require: float | None,
    progress: Progress,
) -> FidelityReport:
    """The report on what was built, with answers and with what calibration found.

    Args:
        subject: what is measured.
        text: what it is measured on.
        recipe: may name prompts.
        tokenizer: the base's.
        findings: what calibration found.
        require: the largest ratio that passes, if there is one.
        progress: told of every step.
    """
    report = findings.told_in(measure_fidelity(subject, text, require=require, progress=progress))
    return with_answers(report, recipe, subject, text, tokenizer, progress)


def measure_build(
    plan: OpenPlan,
    compiled: Compiled,
    subject: Subject,
    folder: Path,
    *,
    require: float | None,
    progress: Progress,
) -> tuple[FidelityReport, ActingText]:
    """Measure what was built, and write the report; gives the text too."""
    recipe, tokenizer = plan.recipe, compiled.tokenizer
    text = held_out_text(recipe, plan.base, compiled.intervention, tokenizer, progress)
    report = measured(
        subject,
        text,
        recipe,
        tokenizer,
        Findings.of(compiled),
        require=require,
        progress=progress,
    )
    write_report(report, folder)
    return report, text


def write_beside(
    plan: OpenPlan, compiled: Compiled, text: ActingText | None, folder: Path
) -> dict[str, FileDigest]:
    """Write what stands beside a build's weights: `reproduce/` and the author's words.

    Returns:
        The digests of these files, and of the report where it is there already.
    """
    write_reproduction(plan, compiled, text.sequences if text else None, folder)
    words = write_words(plan.recipe.card, folder)
    names = (*REPRODUCTION, REPORT, *words)
    return {name: digest_file(folder / name) for name in names if (folder / name).exists()}
