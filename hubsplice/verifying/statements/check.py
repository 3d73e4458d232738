"""All that a checkpoint's files say about it: what holds, what does not, and what was not shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hubsplice.card import render_card
from hubsplice.card.render import card_data
from hubsplice.card.words import AFTER, BEFORE, AuthorWords, read_words
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.engine_runs import ENGINE_RUNS, EngineRun
from hubsplice.checkpoint.manifest import Manifest
from hubsplice.checkpoint.resolve import ResolvedBase
from hubsplice.evaluating.results import Evaluation
from hubsplice.fidelity.report import REPORT, FidelityReport
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.saved import RECIPE
from hubsplice.recipe.models import Recipe
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.contents import Contents
from hubsplice.verifying.result import Check
from hubsplice.verifying.statements.base import base_record
from hubsplice.verifying.statements.calibration import calibration_record
from hubsplice.verifying.statements.card import compare_card, data_claims
from hubsplice.verifying.statements.edits import edit_records, splices_in_order
from hubsplice.verifying.statements.evaluation import check_evaluation
from hubsplice.verifying.statements.figures import figure_problems
from hubsplice.verifying.statements.layers import layer_records
from hubsplice.verifying.statements.ledger import (
    AuthorClaim,
    Comparison,
    as_json,
    claims_of,
    shown_by,
)
from hubsplice.verifying.statements.picture import check_pictures
from hubsplice.verifying.weights import StoredTensor

BASE_RECORD = "base record"
EDIT_RECORDS = "edit records"
LAYER_RECORDS = "layer records"
CALIBRATION_RECORD = "calibration record"
FIGURES = "figures"
ENGINE_RUNS_CHECK = "engine runs"

_HELD = {
    BASE_RECORD: "what the manifest says of the base is what the base says, where it says it",
    EDIT_RECORDS: "labels, kinds, formulas and strengths are what the recipe gives",
    LAYER_RECORDS: "constructions and constants are the family's, neurons those of the weights",
    CALIBRATION_RECORD: "its norms are those of the intervention",
}
_NEEDED = ("layer map", "added tensors", "intervention", "recipe")


@dataclass(frozen=True)
class Statements:
    """What became of the statements of a checkpoint.

    Attributes:
        checks: of those that could be worked out again.
        claims: those that were not shown.
    """

    checks: tuple[Check, ...]
    claims: tuple[AuthorClaim, ...]


def check_statements(
    contents: Contents,
    claim: Claim,
    opened: ResolvedBase,
    repo_id: str | None,
    checks: Sequence[Check],
) -> Statements:
    """Work out again what a checkpoint says of itself, and list what can't be.

    Args:
        contents: of the checkpoint.
        claim: its manifest, and the base.
        opened: where the base came from.
        repo_id: the repository that the checkpoint is; None for a folder.
        checks: those of its files and tensors.
    """
    folder, version = contents.folder, claim.manifest.hubsplice
    # What is wrong with them, checks of their own say.
    (report, _), (recipe, _) = contents.report, contents.recipe
    evaluation, unreadable = contents.evaluation
    compared = {BASE_RECORD: base_record(claim, opened)}
    made = [_made(BASE_RECORD, compared[BASE_RECORD])]
    missed = [check.name for check in checks if not check.passed and check.name in _NEEDED]
    intervention, _ = contents.intervention
    if missed or intervention is None or recipe is None:
        reason = f"not checked, because these did not pass: {', '.join(missed)}"
        names = (EDIT_RECORDS, LAYER_RECORDS, CALIBRATION_RECORD, FIGURES)
        made += [Check.impossible(name, reason) for name in names]
    else:
        more = _compare(claim, recipe, intervention, report, contents.weights[0])
        made += [_made(name, found) for name, found in more.items()]
        compared |= more
        made.append(_figures(claim, recipe, intervention, report))
    author = read_words(folder, recipe)
    runs, unread = contents.engine_runs(claim.manifest)
    if unread:
        made.append(Check.of(ENGINE_RUNS_CHECK, unread, ""))
    rendered = partial(_card, folder, claim.manifest, report, author, runs, evaluation)
    card, written = compare_card(folder, repo_id, version, partial(rendered, render_card))
    if card.passed:
        data = data_claims(folder, version, partial(rendered, card_data))
        written = (*written, *data)
    drawn, not_compared = check_pictures(folder, claim.manifest, report)
    made += [drawn, card]
    checked, evaluated = check_evaluation(folder, claim.manifest, evaluation, unreadable)
    made += checked
    shown = {path for found in compared.values() if not found.problems for path in found.shown}
    claims = claims_of(claim.manifest, shown, tuple(shown_by(checks)), MANIFEST)
    return Statements(
        tuple(made),
        (
            *claims,
            *_measured(report),
            *evaluated,
            *_recorded(runs),
            *not_compared,
            *_words(recipe, author),
            *written,
        ),
    )


def check_carrier_statements(
    contents: Contents,
    claim: Claim,
    opened: ResolvedBase,
    repo_id: str | None,
    checks: Sequence[Check],
) -> Statements:
    """The same of a carrier, which has no edits to say anything of."""
    folder, record = contents.folder, base_record(claim, opened)
    author = read_words(folder, None)
    rendered = partial(_card, folder, claim.manifest, None, author, (), None, render_card)
    card, written = compare_card(folder, repo_id, claim.manifest.hubsplice, rendered)
    shown = set() if record.problems else set(record.shown)
    claims = claims_of(claim.manifest, shown, tuple(shown_by(checks)), MANIFEST)
    return Statements((_made(BASE_RECORD, record), card), (*claims, *written))


def _card(
    folder: Path,
    manifest: Manifest,
    report: FidelityReport | None,
    author: AuthorWords,
    runs: Sequence[EngineRun],
    evaluation: Evaluation | None,
    render: Callable[..., str],
    model_id: str | None,
    license_id: str | None,
) -> str:
    return render(
        manifest,
        report,
        author=author,
        license_id=license_id,
        model_id=model_id or folder.resolve().name,
        runs=runs,
        evaluation=evaluation,
    )


def _recorded(runs: Iterable[EngineRun]) -> Iterator[AuthorClaim]:
    """Runs of engines that the model's maker has on record."""
    for run in runs:
        stated = f"{run.dtype}, {run.date}: {'passed' if run.passed else 'not passed'}"
        yield AuthorClaim(
            file=ENGINE_RUNS,
            field=f"{run.engine} {run.version}",
            stated=as_json(stated),
            why="files can't show it; `hubsplice verify --engine` runs one here",
        )


def _words(recipe: Recipe | None, author: AuthorWords) -> tuple[AuthorClaim, ...]:
    """What the card has from its author as it stands there."""
    if recipe is None:
        return ()
    own = "it is the author's own words"
    words = {"title": recipe.title, "description": recipe.description}
    files = {BEFORE: author.before, AFTER: author.after}
    return (
        *(
            AuthorClaim(file=RECIPE, field=name, stated=as_json(text), why=own)
            for name, text in words.items()
            if text
        ),
        *(
            AuthorClaim(file=name, field="all of it", stated=as_json(text.splitlines()[0]), why=own)
            for name, text in files.items()
            if text
        ),
    )


def _made(name: str, found: Comparison) -> Check:
    return Check.of(name, found.problems, _HELD[name])


def _compare(
    claim: Claim,
    recipe: Recipe,
    intervention: Intervention,
    report: FidelityReport | None,
    stored: Mapping[str, StoredTensor],
) -> dict[str, Comparison]:
    splices, problems = splices_in_order(claim, recipe)
    layers = layer_records(claim, intervention, stored)
    if problems:
        edits = Comparison(claim.manifest)
        edits.problems += problems
        return {EDIT_RECORDS: edits, LAYER_RECORDS: layers}
    return {
        EDIT_RECORDS: edit_records(claim, splices, intervention),
        LAYER_RECORDS: layers,
        CALIBRATION_RECORD: calibration_record(claim, recipe, splices, intervention, report),
    }


def _figures(
    claim: Claim, recipe: Recipe, intervention: Intervention, report: FidelityReport | None
) -> Check:
    if report is None:
        return Check.of(FIGURES, [], "nothing was measured")
    problems = figure_problems(report, claim, recipe, intervention)
    return Check.of(FIGURES, problems, "the verdict follows from them, and curves are of the edit")


def _measured(report: FidelityReport | None) -> tuple[AuthorClaim, ...]:
    if report is None:
        return ()
    return (
        AuthorClaim(
            file=REPORT,
            field="everything that was measured",
            stated=as_json(report.verdict),
            why="files can't show it; `hubsplice measure` measures again",
        ),
    )
