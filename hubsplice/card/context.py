"""What a card says, taken from the manifest and the report as plain data."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeVar

from pydantic import JsonValue

from hubsplice.card.escape import Markdown, clean, code, fenced, inline, words
from hubsplice.card.metadata import license_files, reads_features
from hubsplice.card.phrases import formula, sentence, with_numbers
from hubsplice.card.words import AuthorWords
from hubsplice.checkpoint.engine_runs import EngineRun
from hubsplice.checkpoint.layer_map import FromBase, FromSplice, Joined, inserted_indices
from hubsplice.checkpoint.manifest import (
    SPLIT,
    BaseRecord,
    BaseTerms,
    CalibrationRecord,
    ConfigChange,
    Manifest,
    TermRecord,
)
from hubsplice.constructions.output_bias import OUTPUT_BIAS
from hubsplice.evaluating.results import Evaluation
from hubsplice.evaluating.tables import Shown, evaluation_tables
from hubsplice.families.engines import EngineKey
from hubsplice.features.fit_record import SaeFit
from hubsplice.fidelity import summary
from hubsplice.fidelity.answers import Answers
from hubsplice.fidelity.format import MISSING, count, percent, significant
from hubsplice.fidelity.optional import LEFT_OUT
from hubsplice.fidelity.report import FidelityReport
from hubsplice.intervention.saved import RECIPE
from hubsplice.pictures.drawing import shown
from hubsplice.recipe.models import BUILTIN
from hubsplice.rendering.content import Table
from hubsplice.serving.commands import GGUF_TYPES, quantization_options
from hubsplice.serving.engines import ENGINES
from hubsplice.serving.measured import by_scheme
from hubsplice.serving.online import OnlineQuantization
from hubsplice.serving.requirements import Requirements
from hubsplice.serving.verdict import Outcome, verdict

Value = TypeVar("Value")


# Longer tables are folded away.
_LONG_TABLE = 24
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BIASES = {
    "attention_bias": "the attention's linear layers",
    "mlp_bias": "the MLP's linear layers",
}
_OUTCOMES = {
    Outcome.WORKS: "yes",
    Outcome.NEEDS: "yes, given",
    Outcome.REFUSES: Markdown("**no**"),
    Outcome.UNKNOWN: "not known",
}


@dataclass(frozen=True)
class FidelityContext:
    """The report's part of a card."""

    verdict: str
    failed: bool
    required_ratio: str
    text: Markdown
    text_ids: Markdown
    tokens: str
    scored: str
    sequences: str
    chosen: str
    scanned: str
    sequence_length: str
    seed: int
    device: str
    effect: str | None
    effect_warning: str | None
    edits: Table
    curves: Table
    agreement: Table
    divergences: Table
    sites: Table
    sinks: Table
    features: Table
    greedy: str | None
    left_out: tuple[str, ...]
    approximations: tuple[str, ...]


@dataclass(frozen=True)
class AnswersContext:
    """What base and edited model answer.

    Attributes:
        greedy: a row for each prompt.
        sampled: the same of sampled answers.
        hook: answers at which the exact hook parts from the checkpoint.
        how: how answers were made, and who chose the prompts.
        all_same: whether no answer is changed.
    """

    greedy: Table
    sampled: Table
    hook: Table
    how: str
    sampling: str
    all_same: bool


@dataclass(frozen=True)
class EvaluationContext:
    """Base and this model side by side.

    Attributes:
        parts: tables, each with how it was measured.
        sweep: what a sweep found when the strength was chosen, a line each.
    """

    parts: tuple[Shown, ...]
    sweep: tuple[str, ...]


@dataclass(frozen=True)
class CardContext:
    """Everything that the template shows, and `card.json`; see templates/card.md.j2."""

    title: str
    sentence: str
    description: str | None
    licence: str | None
    faithful: str
    before: Markdown
    after: Markdown
    answers: AnswersContext | None
    is_chat: bool
    transformers: str | None
    vllm: str | None
    runs: tuple[str, ...]
    serves: bool
    request: Markdown
    converts: bool
    gguf_type: str
    recipe: Markdown | None
    citation: Markdown
    model_id: str
    on_hub: bool
    base: Markdown
    base_commit: Markdown | None
    base_weights: Markdown | None
    previous_base: Markdown | None
    architecture: str
    former_architecture: str | None
    dtype: str
    carriers: str
    layers_before: int
    layers_after: int
    has_biases: bool
    inserted: Table
    splits_layers: bool
    has_split: bool
    edits: Table
    edits_are_many: bool
    amounts: tuple[str, ...]
    of_features: bool
    leaves_sinks: bool
    conditions: tuple[str, ...]
    sae_fit: tuple[str, ...]
    misfit: bool
    edited_features: Table
    warnings: tuple[str, ...]
    biases: tuple[tuple[str, str], ...]
    servers: Table
    quantised_options: Markdown | None
    quantised: Table
    config_changes: Table
    layer_map: Table
    sources: Table
    calibration: Table
    seeds: str
    versions: str
    files: Table
    base_license: str | None
    other_license: str | None
    gated: bool
    license_files: tuple[str, ...]
    hubsplice: str
    reproducible: bool
    definitions: tuple[tuple[str, str], ...]
    pictures: dict[str, Markdown]
    lost_pictures: tuple[str, ...]
    evaluation: EvaluationContext | None
    fidelity: FidelityContext | None


def card_context(
    manifest: Manifest,
    report: FidelityReport | None,
    *,
    author: AuthorWords,
    license_id: str | None,
    model_id: str,
    runs: Sequence[EngineRun] = (),
    evaluation: Evaluation | None = None,
) -> CardContext:
    """Gather what the template shows."""
    name = manifest.base.name.split("/")[-1]
    before, after = manifest.architectures.before, manifest.architectures.after
    previous = manifest.base.previous
    edits = _edits(manifest)
    requirements = Requirements.of(manifest)
    outcomes = {key: verdict(ENGINES[key], requirements).outcome for key in EngineKey}
    is_chat = _is_chat(manifest, report)
    drawn, lost = shown(manifest, report)
    return CardContext(
        title=clean(author.title or "") or untitled(manifest),
        sentence=sentence(name, (term for layer in manifest.edits for term in layer.terms)),
        description=clean(author.description or "") or None,
        licence=license_id or _license(manifest.base.terms),
        faithful=_faithful(report),
        before=author.before,
        after=author.after,
        answers=_shown_answers(report),
        is_chat=is_chat,
        transformers=manifest.versions.get("transformers"),
        vllm=ENGINES[EngineKey.VLLM].version,
        runs=tuple(map(_run, runs)),
        serves=outcomes[EngineKey.VLLM] is not Outcome.REFUSES,
        request=_request(model_id, is_chat=is_chat),
        gguf_type=GGUF_TYPES.get(manifest.dtype, "auto"),
        converts=outcomes[EngineKey.LLAMA_CPP] in (Outcome.WORKS, Outcome.NEEDS),
        recipe=fenced(author.recipe, "yaml") if author.recipe else None,
        citation=_citation(model_id),
        model_id=model_id,
        on_hub="/" in model_id and _REPO_ID.fullmatch(model_id) is not None,
        base=_model(manifest.base),
        base_commit=_commit(manifest.base),
        base_weights=_weights(manifest.base),
        previous_base=_model(previous.base) if previous is not None else None,
        architecture=after,
        former_architecture=before if before != after else None,
        dtype=manifest.dtype,
        carriers=" and ".join(manifest.carriers),
        has_biases=bool(manifest.biases),
        layers_before=len(manifest.layer_map) - len(manifest.layers),
        layers_after=len(manifest.layer_map),
        inserted=_inserted(manifest),
        splits_layers=any(isinstance(layer, Joined) for layer in manifest.layer_map),
        has_split=any(layer.construction == SPLIT for layer in manifest.layers),
        edits=edits,
        edits_are_many=len(edits.rows) > _LONG_TABLE,
        amounts=tuple(map(str, manifest.amounts)),
        of_features=reads_features(manifest),
        leaves_sinks=any(norm is not None for norm in _sink_norms(manifest)),
        conditions=tuple(map(str, manifest.conditions)),
        sae_fit=tuple(f"after layer {place}: {fit}" for place, fit in _fits(manifest)),
        misfit=any(fit.misfit for _, fit in _fits(manifest)),
        edited_features=_edited_features(manifest),
        warnings=manifest.calibration.warnings if manifest.calibration else (),
        biases=tuple((f, _BIASES.get(f, "linear layers")) for f in requirements.bias_fields),
        servers=_servers(requirements),
        quantised_options=_quantised_options(manifest, requirements),
        quantised=_quantised(),
        config_changes=_config_changes(manifest.config_changes),
        layer_map=_layer_map(manifest),
        sources=_sources(manifest),
        calibration=_calibration(manifest.calibration),
        seeds=_pairs(manifest.seeds),
        versions=_pairs({"hubsplice": manifest.hubsplice} | manifest.versions),
        files=_files(manifest),
        base_license=_license(manifest.base.terms),
        other_license=license_id,
        gated=bool(manifest.base.terms.gated),
        license_files=license_files(manifest),
        hubsplice=manifest.hubsplice,
        reproducible=RECIPE in manifest.files,
        definitions=tuple(summary.DEFINITIONS.items()),
        pictures={
            PurePath(name).stem: Markdown(f"![{inline(alt)}]({name})")
            for name, alt in drawn.items()
        },
        lost_pictures=lost,
        evaluation=(
            None
            if evaluation is None
            else EvaluationContext(tuple(evaluation_tables(evaluation)), evaluation.sweep)
        ),
        fidelity=None if report is None else _fidelity(report),
    )


def untitled(manifest: Manifest) -> str:
    """What to call a model whose recipe does not say."""
    if manifest.carrier is not None:
        what = "an edit"
    else:
        what = "spliced" if manifest.slots is None else "a carrier"
    return f"{manifest.base.name.split('/')[-1]}, {what}"


def _fidelity(report: FidelityReport) -> FidelityContext:
    text = report.text
    return FidelityContext(
        verdict=report.verdict,
        failed=report.passed is False,
        required_ratio=significant(report.required_ratio),
        text=_text(text.dataset, text.revision),
        text_ids=code(text.token_ids_sha256),
        tokens=count(text.tokens),
        scored=count(report.scored_tokens),
        sequences=count(text.sequences),
        chosen=count(text.sequences - (text.drawn_sequences or text.sequences)),
        scanned=count(text.scanned_tokens),
        sequence_length=count(text.sequence_length),
        seed=text.seed,
        device=report.device,
        effect=summary.effect_sentence(report.effect) if report.effect else None,
        effect_warning=summary.effect_warning(report.effect) if report.effect else None,
        edits=summary.edits(report),
        curves=summary.curves(report),
        agreement=summary.agreement(report),
        divergences=summary.divergences(report),
        sites=summary.sites(report),
        sinks=summary.sinks(report),
        features=summary.features(report),
        greedy=summary.greedy_match(report),
        left_out=tuple(
            warning.removeprefix(LEFT_OUT)
            for warning in report.warnings
            if warning.startswith(LEFT_OUT)
        ),
        approximations=report.approximations,
    )


def _faithful(report: FidelityReport | None) -> str:
    """The verdict for those who only want to use the model."""
    if report is None or not report.precisions:
        return "not measured; nothing here says how close the weights come to the edit"
    dtype = report.precisions[0].dtype
    if report.outcome == "shown":
        ratio = report.precisions[0].ratio
        error = (
            f"; the error of the whole model is {significant(ratio.value)} times what {dtype} "
            "itself costs"
            if ratio
            else ""
        )
        return f"in {dtype}, the weights do what an exact hook on the base does{error}"
    if report.outcome == "fails":
        return (
            f"in {dtype}, at least one edit is NOT made as an exact hook makes it; the verdict "
            "below names it"
        )
    return (
        f"it was measured in {dtype}, and that was not enough to show that the weights do what "
        "an exact hook does; the verdict below says why"
    )


def _shown_answers(report: FidelityReport | None) -> AnswersContext | None:
    answers = report.answers if report else None
    return _answers(answers) if answers and answers.prompts else None


def _answers(answers: Answers) -> AnswersContext:
    def table(who: str, rows: Iterable[tuple[str, str, str]]) -> Table:
        return Table.of_text(
            ("you ask", f"{who} says", "this model says"),
            tuple(tuple(map(words, row)) for row in rows),
            "",
        )

    by = (
        "The prompts are the author's."
        if answers.chosen == "by the author"
        else f"Of {count(answers.candidates)} prompts, these are the ones on which the edit acts "
        "and where the answers part soonest: they show what it does, not how often."
    )
    form = (
        "through the chat template"
        if any(answer.form == "chat" for answer in answers.prompts)
        else "as plain text to go on with"
    )
    same = sum(answer.hook is None for answer in answers.prompts)
    parted = (
        ""
        if same == len(answers.prompts)
        else "; one word that rounding tips changes all that follow, so the figures under Fidelity "
        "tell more"
    )
    return AnswersContext(
        greedy=table(
            "the base", ((a.prompt, a.greedy.base, a.greedy.edited) for a in answers.prompts)
        ),
        sampled=table(
            "the base",
            (
                (a.prompt, a.sampled.base, a.sampled.edited)
                for a in answers.prompts
                if a.sampled is not None
            ),
        ),
        hook=table(
            "an exact hook on the base",
            ((a.prompt, a.hook, a.greedy.edited) for a in answers.prompts if a.hook is not None),
        ),
        how=(
            f"Both models were asked when this one was built: {form}, greedily, in "
            f"{answers.dtype}, for at most {answers.new_tokens} tokens. {by} An exact hook on the "
            f"base says the same to {same} of {len(answers.prompts)}{parted}."
        ),
        sampling=(
            f"temperature {answers.temperature:g}, top-p {answers.top_p:g}, seed {answers.seed}"
        ),
        all_same=all(answer.greedy.base == answer.greedy.edited for answer in answers.prompts),
    )


def _run(run: EngineRun) -> str:
    """One run of an engine with this checkpoint, as its maker has it on record."""
    what = f"{clean(run.engine)} {clean(run.version)}"
    where = "" if run.device is None else f" on {clean(run.device).upper()}"
    floor = "" if run.noise_floor is None else f", noise floor {significant(run.noise_floor)}"
    missed = ", ".join(map(clean, run.missed))
    said = f"{what}{where}, {run.date.isoformat()}, in {clean(run.dtype)}"
    came = f"Verified with {said}: it serves the edit"
    if not run.passed:
        came = f"{said}: NOT passed: {missed}"
    return (
        f"{came}. {count(run.prompts)} prompts, {count(run.generated_tokens)} generated tokens, "
        f"{significant(run.error)} nats a token from the exact hook{floor}; the edit changes "
        f"{significant(run.effect)}"
    )


def _is_chat(manifest: Manifest, report: FidelityReport | None) -> bool:
    asked = report.answers.prompts if report and report.answers else ()
    return any("chat_template" in name for name in manifest.files) or any(
        answer.form == "chat" for answer in asked
    )


def _request(model_id: str, *, is_chat: bool) -> Markdown:
    """What curl sends to a server, as one word of a shell."""
    asked: dict[str, JsonValue] = (
        {"messages": [{"role": "user", "content": "Who are you?"}]}
        if is_chat
        else {"prompt": "Once upon a time", "max_tokens": 50}
    )
    body = json.dumps({"model": clean(model_id), **asked, "temperature": 0}, ensure_ascii=False)
    return Markdown(shlex.quote(body))


def _citation(model_id: str) -> Markdown:
    name = re.sub(r"[{}\\%#$&~^_`\"]", "", clean(model_id))
    key = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "spliced-model"
    lines = (
        f"@misc{{{key},",
        f"  title = {{{name}: a model with compiled feature edits}},",
        f"  howpublished = {{\\url{{https://huggingface.co/{name}}}}},"
        if _REPO_ID.fullmatch(name) and "/" in name
        else "  howpublished = {a checkpoint made with hubsplice},",
        "}",
    )
    return fenced("\n".join(lines), "bibtex")


def _model(base: BaseRecord) -> Markdown:
    if base.repo_id is None or not _REPO_ID.fullmatch(base.repo_id):
        return code(base.name)
    return Markdown(f"[{base.repo_id}](https://huggingface.co/{base.repo_id})")


def _weights(base: BaseRecord) -> Markdown | None:
    """What a copy of the base is known by, where nothing says where to get one."""
    weights = base.first_weights
    if base.repo_id is not None or weights is None:
        return None
    name, sha256 = weights
    return Markdown(f"the SHA-256 of its {code(name)} is {code(sha256)}")


def _license(terms: BaseTerms) -> str | None:
    if terms.license == "other" and terms.license_name is not None:
        return terms.license_name
    return terms.license


def _commit(base: BaseRecord) -> Markdown | None:
    if base.commit is None:
        return None
    if base.repo_id is None or not (
        _COMMIT.fullmatch(base.commit) and _REPO_ID.fullmatch(base.repo_id)
    ):
        return code(base.commit)
    address = f"https://huggingface.co/{base.repo_id}/tree/{base.commit}"
    return Markdown(f"[`{base.commit}`]({address})")


def _servers(requirements: Requirements) -> Table:
    """What becomes of the model in every engine."""
    verdicts = (verdict(engine, requirements) for engine in ENGINES.values())
    return Table(
        ("server", "version", "serves this model", "why", "how that is known"),
        tuple(
            (
                found.engine.name,
                found.engine.version,
                _OUTCOMES[found.outcome],
                found.reason or MISSING,
                found.evidence or MISSING,
            )
            for found in verdicts
        ),
        text_columns=5,
    )


def _quantised_options(manifest: Manifest, requirements: Requirements) -> Markdown | None:
    """How vLLM quantises the model to fp8, with its inserted layers as they are."""
    works = verdict(ENGINES[EngineKey.VLLM], requirements).outcome is Outcome.WORKS
    if not works or manifest.dtype == "float32":
        return None
    options = quantization_options(manifest, OnlineQuantization.FP8_PER_CHANNEL)
    return Markdown(shlex.join(options))


def _quantised() -> Table:
    """What is known of quantised splices, from a model that is not this one."""
    return Table(
        (
            "quantisation",
            "splice error ÷ floor, all rounded",
            "inserted layers left out",
            "residual error, all rounded",
            "inserted layers left out",
        ),
        tuple(
            (
                scheme,
                _span(m.whole for m in rows),
                _span(m.kept for m in rows),
                _span(m.whole_residual for m in rows),
                _span(m.kept_residual for m in rows),
            )
            for scheme, rows in by_scheme().items()
        ),
        text_columns=1,
    )


def _span(values: Iterable[float]) -> str:
    found = sorted(values)
    return f"{significant(found[0])} to {significant(found[-1])}"


def _text(dataset: str, revision: str | None) -> Markdown:
    name = code(dataset)
    if dataset == BUILTIN:
        name = Markdown(f"{name} (a sample of many kinds of text, and what comes with Python)")
    return name if revision is None else Markdown(f"{name} at {code(revision)}")


def _inserted(manifest: Manifest) -> Table:
    rows = [
        (
            str([x.mlp for x in manifest.layer_map].index(FromBase(base=bias.site))),
            MISSING,
            OUTPUT_BIAS,
            MISSING,
            count(len(bias.terms)),
        )
        for bias in manifest.biases
    ]
    for index, layer in zip(inserted_indices(manifest.layer_map), manifest.layers, strict=True):
        neurons = layer.constants.get("neurons")
        rows.append(
            (
                str(index),
                str(layer.place),
                layer.construction,
                count(neurons) if isinstance(neurons, int) else MISSING,
                count(len(layer.terms)),
            )
        )
    return Table(
        ("layer", "after the base's layer", "construction", "neurons used", "terms"),
        tuple(rows),
        text_columns=3,
    )


def _edits(manifest: Manifest) -> Table:
    return Table(
        ("edit", "after layer", "what it does", "feature", "formula", "settings"),
        tuple(
            (
                term.label,
                str(layer.place),
                with_numbers(term),
                MISSING if term.feature is None else str(term.feature),
                _formula(term),
                _settings(term),
            )
            for layer in manifest.edits
            for term in layer.terms
        ),
        text_columns=6,
    )


def _formula(term: TermRecord) -> Markdown:
    text, where = formula(term)
    return Markdown(f"{code(text)}{where}")


def _sink_norms(manifest: Manifest) -> Iterable[float | None]:
    return [] if manifest.calibration is None else manifest.calibration.sink_norm.values()


def _fits(manifest: Manifest) -> list[tuple[str, SaeFit]]:
    return [] if manifest.calibration is None else _by_site(manifest.calibration.sae_fit)


def _edited_features(manifest: Manifest) -> Table:
    """How often each edited feature is active, and how strongly."""
    return Table(
        ("feature", "after layer", "active on", "mean where active", "maximum"),
        tuple(
            (
                name,
                place,
                percent(found.active_tokens / found.scanned_tokens),
                significant(found.mean),
                significant(found.maximum),
            )
            for place, fit in _fits(manifest)
            for name, found in fit.features.items()
            if found.scanned_tokens
        ),
        text_columns=2,
    )


def _settings(term: TermRecord) -> str:
    shown: dict[str, JsonValue] = {
        name: value
        for name, value in term.edit.items()
        if name not in ("kind", "label", "feature") and value is not None
    }
    return ", ".join(f"{name} = {value}" for name, value in _flat(shown))


def _flat(value: JsonValue, name: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf with its dotted name; of a path, its last part."""
    if isinstance(value, dict):
        for key, item in sorted(value.items()):
            yield from _flat(item, f"{name}.{key}" if name else key)
    elif value is not None:
        is_path = isinstance(value, str) and (name == "path" or name.endswith(".path"))
        yield name, PurePath(str(value)).name if is_path else _scalar(value)


def _scalar(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.12g}"
    return json.dumps(value, ensure_ascii=False)


def _config_changes(changes: dict[str, ConfigChange]) -> Table:
    def side(change: ConfigChange, name: str) -> Markdown | str:
        if name not in change.model_fields_set:
            return MISSING
        return code(json.dumps(getattr(change, name), ensure_ascii=False))

    return Table(
        ("key", "base", "this model"),
        tuple(
            (code(key), side(change, "before"), side(change, "after"))
            for key, change in sorted(changes.items())
        ),
        text_columns=3,
    )


def _layer_map(manifest: Manifest) -> Table:
    """Runs of the base's layers in one row each, and a row for each other layer."""
    rows: list[tuple[str, str]] = []
    start = 0
    for index, origin in enumerate(manifest.layer_map):
        following = manifest.layer_map[index + 1 : index + 2]
        if not isinstance(origin, FromBase):
            rows.append((str(index), _origin(origin)))
            start = index + 1
        elif not following or not isinstance(following[0], FromBase):
            first = origin.base - (index - start)
            rows.append((_range(start, index), f"base layer {_range(first, origin.base)}"))
    return Table(("this model's layer", "comes from"), tuple(rows), text_columns=2)


def _origin(layer: FromBase | FromSplice | Joined) -> str:
    if isinstance(layer, Joined):
        return f"attention of {_origin(layer.attention)}, MLP of {_origin(layer.mlp)}"
    if isinstance(layer, FromSplice):
        return f"inserted layer {layer.splice}"
    return f"base layer {layer.base}"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"


def _sources(manifest: Manifest) -> Table:
    rows: dict[tuple[str, str], None] = {}
    for layer in manifest.edits:
        for term in layer.terms:
            source = ", ".join(f"{name} = {value}" for name, value in _flat(term.source))
            source = source or _examples(term.edit.get("contrast"))
            # Of a local file nothing may be known.
            if source or term.source_sha256:
                sha256 = MISSING if term.source_sha256 is None else code(term.source_sha256)
                rows[source, sha256] = None
    return Table(("source of features", "SHA-256 of its weights"), tuple(rows), text_columns=2)


def _examples(contrast: JsonValue) -> str:
    """The two sets that a direction is learned from, by file or number; empty without them."""
    if not isinstance(contrast, dict):
        return ""
    sides = [contrast.get(side) for side in ("positive", "negative")]
    positive, negative = (
        f"{count(len(side))} examples" if isinstance(side, list) else PurePath(str(side)).name
        for side in sides
    )
    return f"contrast of {positive} and {negative}"


def _chosen(record: CalibrationRecord) -> str:
    return f"{count(record.chosen_sequences)}, found in {count(record.scanned_tokens)} tokens"


def _calibration(record: CalibrationRecord | None) -> Table:
    rows: list[tuple[str, str]] = []
    if record is not None:
        rows += [
            ("text", _text(record.dataset, record.revision)),
            ("tokens", count(record.tokens)),
            ("sequences chosen since edits act on them", _chosen(record)),
            ("SHA-256 of the token ids", code(record.token_ids_sha256)),
            ("seed", str(record.seed)),
        ]
        for site, norm in _by_site(record.median_norm):
            rows.append((f"median residual norm after layer {site}", significant(norm)))
        for site, limit in _by_site(record.sink_norm):
            shown = "none is left alone" if limit is None else f"above {significant(limit)}"
            rows.append((f"norm of a sink after layer {site}", shown))
    return Table(("calibration", "value"), tuple(rows), text_columns=2)


def _by_site(values: Mapping[str, Value]) -> list[tuple[str, Value]]:
    return sorted(values.items(), key=lambda item: (len(item[0]), item[0]))


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items()))


def _files(manifest: Manifest) -> Table:
    return Table(
        ("file", "bytes", "SHA-256"),
        tuple(
            (code(name), count(digest.size), code(digest.sha256))
            for name, digest in sorted(manifest.files.items())
            # A card that held its own checksum would not have that checksum.
            if name != "README.md"
        ),
        text_columns=3,
    )
