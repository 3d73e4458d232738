"""A model card as text, from a manifest and a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache

from jinja2 import Template

from hubsplice.card.carriers import AdapterContext, CarrierContext
from hubsplice.card.context import CardContext, card_context
from hubsplice.card.escape import as_markdown, code, table
from hubsplice.card.metadata import card_metadata
from hubsplice.card.snippets import python_string, shell_word
from hubsplice.card.words import NOTHING_SAID, AuthorWords
from hubsplice.checkpoint.engine_runs import EngineRun
from hubsplice.checkpoint.manifest import Manifest
from hubsplice.evaluating.results import Evaluation
from hubsplice.fidelity.report import FidelityReport
from hubsplice.templates import load_template


def render_card(
    manifest: Manifest,
    report: FidelityReport | None,
    *,
    author: AuthorWords = NOTHING_SAID,
    license_id: str | None = None,
    model_id: str,
    runs: Sequence[EngineRun] = (),
    evaluation: Evaluation | None = None,
) -> str:
    """The card of a built checkpoint, with its metadata as YAML in front.

    The same arguments give the same text. Whatever comes from a recipe appears as plain words.

    Args:
        manifest: of the checkpoint.
        report: its fidelity; None where it was not measured, which the card then says.
        author: what the card has from the model's author.
        license_id: another licence than the base's, as the Hub writes it (`apache-2.0`).
        model_id: the Hub id or folder that the examples load.
        runs: of engines, as the model's maker has them on record.
        evaluation: base and checkpoint side by side; None where nothing was evaluated.
    """
    context = card_context(
        manifest,
        report,
        author=author,
        license_id=license_id,
        model_id=model_id,
        runs=runs,
        evaluation=evaluation,
    )
    return card_text(context, manifest, license_id, evaluation)


def card_text(
    context: CardContext,
    manifest: Manifest,
    license_id: str | None,
    evaluation: Evaluation | None,
) -> str:
    """What `render_card` gives, of a context that is there already."""
    if manifest.carrier is not None:
        more: dict[str, object] = {"adapter": AdapterContext.of(manifest.carrier)}
    elif manifest.slots is not None:
        more = {"carrier": CarrierContext.of(manifest)}
    else:
        more = {}
    body = _template(next(iter(more), "card")).render(card=context, **more)
    metadata = card_metadata(manifest, license_id, evaluation=evaluation, model_id=context.model_id)
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}"


def card_data(
    manifest: Manifest,
    report: FidelityReport | None,
    *,
    author: AuthorWords = NOTHING_SAID,
    license_id: str | None = None,
    model_id: str,
    runs: Sequence[EngineRun] = (),
    evaluation: Evaluation | None = None,
) -> str:
    """Everything that `render_card` shows, as JSON for programs; the same arguments."""
    context = card_context(
        manifest,
        report,
        author=author,
        license_id=license_id,
        model_id=model_id,
        runs=runs,
        evaluation=evaluation,
    )
    return data_text(context)


def data_text(context: CardContext) -> str:
    """What `card_data` gives, of a context that is there already."""
    return json.dumps(asdict(context), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@cache
def _template(kind: str) -> Template:
    # The one without filters of its own can be loaded before there are any.
    environment = load_template("card.md.j2").environment.overlay(finalize=as_markdown)
    environment.filters |= {
        "code": code,
        "python_string": python_string,
        "shell_word": shell_word,
        "table": table,
    }
    return environment.get_template(f"{kind}.md.j2")
