"""A report as tables of text: what the terminal and the card both show, under the same names."""

from __future__ import annotations

from hubsplice.fidelity.format import MISSING, count, interval, percent, significant
from hubsplice.fidelity.report import (
    Distribution,
    EditEffect,
    FidelityReport,
    PrecisionFidelity,
    SiteFidelity,
)
from hubsplice.rendering.content import Table

EDIT_EFFECT = "edit effect"
NOISE_FLOOR = "noise floor"
SPLICE_ERROR = "splice error"
PLAIN_HOOK = "hook that edits sinks"
RATIO = "ratio"
CLIPPED_RATIO = "clipped ratio"
TOP1_AGREEMENT = "top-1 agreement"
GREEDY_MATCH = "greedy match"
RESIDUAL_ERROR = "residual error"
AMOUNT_ERROR = "amount error"
GATE_F1 = "gate F1"
RESPONSE_CURVE = "response curve"
STRENGTH = "strength"
ACTED = "acted tokens"
BEHIND = "behind"
SINK = "sink"

DEFINITIONS = {
    ACTED: "the tokens where the exact hook changes the stream; behind: later tokens of a sequence "
    "in which it has acted. A verdict is made on these, edit by edit.",
    STRENGTH: "how much of the edit the inserted layer makes where the edit acts: 1 is all of it, "
    "0 nothing, −1 its opposite.",
    EDIT_EFFECT: "KL(hook in float32 ‖ base in float32): what the edit does.",
    NOISE_FLOOR: "KL(hook in float32 ‖ hook at a precision): what that precision costs by itself.",
    SPLICE_ERROR: "KL(hook in float32 ‖ spliced model at a precision).",
    RATIO: "splice error / noise floor; 1 means that the splice costs nothing of its own.",
    CLIPPED_RATIO: "the ratio with each token's divergence clipped at 0.05 nat, so that no single "
    "token decides it.",
    PLAIN_HOOK: "KL(hook ‖ one that edits sinks too, as SAELens would), in float32.",
    TOP1_AGREEMENT: "tokens at which the likeliest next token is that of the hook in float32.",
    GREEDY_MATCH: "new tokens of a greedy continuation before the first that differs.",
    RESIDUAL_ERROR: "‖splice's change − hook's change‖ / ‖hook's change‖ at the edited layer, over "
    "tokens that are edited.",
    AMOUNT_ERROR: "‖a − φ‖ / ‖φ‖ over the tokens that an edit changes, where a is how much of its "
    "direction the layer writes, told apart from what other edits write. What goes into other "
    "directions is in the residual error, and not in this.",
    RESPONSE_CURVE: "what the inserted layer by itself writes along the edit's direction as the "
    "pre-activation p sweeps, on streams of the text that are moved along the encoder. It is no "
    "text: it shows that a layer is wrong, not that a model is right.",
    GATE_F1: "agreement on where a feature counts as active, with the hook in float32.",
    SINK: "a token whose residual norm is many times the others', such as the first one; where "
    "the recipe says so, sinks are left alone.",
}


def edits(report: FidelityReport) -> Table:
    """Per edit and precision: the outcome, and what it was made from."""
    return Table(
        (
            "edit",
            "after layer",
            "precision",
            "outcome",
            ACTED,
            f"{STRENGTH} (95%)",
            RESIDUAL_ERROR,
            f"{RATIO}, {ACTED} (95%)",
            f"{RATIO}, {BEHIND} (95%)",
        ),
        tuple(
            (
                edit.label,
                str(edit.place),
                precision.dtype,
                edit.outcome,
                count(edit.site.acted_tokens),
                interval(edit.site.strength),
                significant(edit.site.residual_error),
                interval(edit.acted.ratio if edit.acted else None),
                interval(edit.behind.ratio if edit.behind else None),
            )
            for precision in report.precisions
            for edit in precision.edits
        ),
        text_columns=4,
        title="Each edit, on the tokens that it changes",
    )


def curves(report: FidelityReport) -> Table:
    """Per edit and precision: how far the layer by itself is from the edit as p sweeps."""
    return Table(
        (
            "edit",
            "after layer",
            "precision",
            "height",
            "largest deviation",
            "at p",
            "beyond the text",
            "at p",
        ),
        tuple(
            (
                edit.label,
                str(edit.place),
                precision.dtype,
                significant(edit.curve.height),
                significant(edit.curve.deviation),
                significant(edit.curve.at),
                significant(edit.curve.beyond),
                significant(edit.curve.beyond_at),
            )
            for precision in report.precisions
            for edit in precision.edits
            if edit.curve is not None
        ),
        text_columns=3,
        title=f"Each edit, by its {RESPONSE_CURVE}",
    )


def divergences(report: FidelityReport) -> Table:
    """Every KL divergence, as mean, median, 99th percentile and maximum, in nats per token."""
    rows = [(EDIT_EFFECT, *_spread(report.edit_effect))]
    for precision in report.precisions:
        if precision.noise_floor is not None:
            rows.append((f"{NOISE_FLOOR}, {precision.dtype}", *_spread(precision.noise_floor)))
        rows.append((f"{SPLICE_ERROR}, {precision.dtype}", *_spread(precision.splice_error)))
    if (plain := report.plain_hook) is not None:
        over = "" if plain.tokens is None else f", over {plain.tokens:,} tokens"
        rows.append((f"{PLAIN_HOOK}{over}", *_spread(plain.divergence)))
    return Table(
        ("nats per token", "mean", "without top 0.1%", "median", "p99", "max"), tuple(rows)
    )


def agreement(report: FidelityReport) -> Table:
    """Per precision: the ratios with their intervals, and top-1 agreement."""
    return Table(
        (
            "precision",
            f"{RATIO} (95%)",
            f"{CLIPPED_RATIO} (95%)",
            f"{EDIT_EFFECT} / {SPLICE_ERROR}",
            f"{TOP1_AGREEMENT}: splice",
            f"{TOP1_AGREEMENT}: hook",
        ),
        tuple(_agreement(precision) for precision in report.precisions),
    )


def greedy_match(report: FidelityReport) -> str | None:
    """One sentence on greedy continuations; None where none were made."""
    greedy = report.greedy
    if greedy is None:
        return None
    return (
        f"in {greedy.dtype}, the splice continues {count(greedy.identical)} of "
        f"{count(greedy.prompts)} prompts exactly as the hook does; on average "
        f"{significant(greedy.mean_matching_tokens)} of {count(greedy.new_tokens)} new tokens "
        f"match before the first difference (hook in {greedy.dtype} against hook in float32: "
        f"{significant(greedy.hook_to_reference)})"
    )


def sites(report: FidelityReport) -> Table:
    """Per edited layer and precision: residual errors."""
    return Table(
        (
            "after layer",
            "precision",
            "edited tokens",
            "overall",
            "mean",
            "median",
            "p99",
            "max",
        ),
        tuple(
            _site(site, precision) for precision in report.precisions for site in precision.sites
        ),
        text_columns=2,
        title=f"Each inserted layer: {RESIDUAL_ERROR}",
    )


def sinks(report: FidelityReport) -> Table:
    """Per edited layer and precision: what happens at tokens that are to be left alone."""
    return Table(
        ("after layer", "precision", "sinks left alone", "largest change, relative to the norm"),
        tuple(
            (
                str(site.place),
                precision.dtype,
                count(site.sink_tokens),
                significant(site.largest_sink_change),
            )
            for precision in report.precisions
            for site in precision.sites
        ),
        text_columns=2,
        title="Each inserted layer: change at sinks",
    )


def features(report: FidelityReport) -> Table:
    """Per edit, layer and precision: how exact its amount is, and gate agreement."""
    return Table(
        ("edit", "after layer", "precision", "edited tokens", AMOUNT_ERROR, GATE_F1),
        tuple(
            (
                feature.label,
                str(site.place),
                precision.dtype,
                count(feature.edited_tokens),
                significant(feature.residual_error),
                significant(feature.gate_f1),
            )
            for precision in report.precisions
            for site in precision.sites
            for feature in site.features
        ),
        text_columns=3,
        title=f"Each edit: {AMOUNT_ERROR}, and {GATE_F1}",
    )


def effect_sentence(effect: EditEffect) -> str:
    """The word, and the figures that it is made from."""
    figures = [f"it acts on {percent(effect.acted_share)} of the tokens"]
    if effect.acted_effect is not None:
        figures.append(
            f"changes the next token there by {significant(effect.acted_effect)} nats on average"
        )
    # Adding zero makes a negative zero positive.
    text = round(effect.edited_text_loss - effect.base_text_loss, 2) + 0.0
    own = round(effect.edited_own_loss - effect.edited_self_loss, 2) + 0.0
    return (
        f"The edit is {effect.word}: "
        if effect.word != "breaks the text"
        else "The edit breaks the text: "
    ) + (
        f"{' and '.join(figures)}; {effect.same_continuations} of {effect.prompts} continuations "
        "stay the same; held-out text is stranger to the edited model by "
        f"{text:.2f} nats a token, and its own text to the base by {own:.2f}."
    )


def effect_warning(effect: EditEffect) -> str | None:
    """What a user may not have meant; None where nothing stands out."""
    if effect.word == "hardly visible":
        return (
            "the edit hardly shows in text: is the strength what you meant, and the feature active "
            "on the text that you have in mind?"
        )
    if effect.word == "breaks the text":
        return "text does not survive the edit: a smaller strength is worth a try"
    return None


def _spread(values: Distribution | None) -> tuple[str, str, str, str, str]:
    if values is None:
        return (MISSING,) * 5
    return (
        significant(values.mean),
        significant(values.mean_without_top),
        significant(values.median),
        significant(values.p99),
        significant(values.max),
    )


def _agreement(precision: PrecisionFidelity) -> tuple[str, ...]:
    return (
        precision.dtype,
        interval(precision.ratio),
        interval(precision.clipped_ratio),
        significant(precision.effect_over_error),
        percent(precision.splice_top1_agreement),
        percent(precision.hook_top1_agreement),
    )


def _site(site: SiteFidelity, precision: PrecisionFidelity) -> tuple[str, ...]:
    mean, _, median, p99, largest = _spread(site.residual_error)
    return (
        str(site.place),
        precision.dtype,
        count(site.edited_tokens),
        significant(site.overall_residual_error),
        mean,
        median,
        p99,
        largest,
    )
