"""`fidelity.json`: what was measured, in the words that reports, cards and docs share.

- edit effect: KL(hook float32 ‖ base float32), what the edit does;
- noise floor: KL(hook float32 ‖ hook at a precision), what that precision costs by itself;
- splice error: KL(hook float32 ‖ splice at a precision); ratio: splice error / noise floor.

Divergences are in nats per token, over held-out tokens; position 0 and attention sinks are not
scored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hubsplice.errors import CheckpointError, FidelityError, NotShownError
from hubsplice.features.amounts import EditAmounts
from hubsplice.features.fit_record import SaeFit
from hubsplice.features.held import EditHeld
from hubsplice.fidelity.answers import Answers
from hubsplice.files.plain import read_plain
from hubsplice.files.strict_json import parse_object
from hubsplice.intervention.place import Block, Place
from hubsplice.rendering.content import Part
from hubsplice.rendering.rendered import Rendered

REPORT = "fidelity.json"

MORE_TEXT = (
    "Give text in which the feature is active: name prompts on which it is (`prompts:` in the "
    "recipe), set fidelity.dataset to such text (`sae` is the SAE's own dataset), or raise "
    "fidelity.scan, which is how many tokens are searched."
)
"""What helps where an edit acted on too few tokens."""

# No text in JSON holds a line break.
_NUMBERS = re.compile(r"\[\n([-+.,eE\d\s]+)\]")


class Record(BaseModel):
    """A part of the report."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Distribution(Record):
    """A per-token quantity over all scored tokens."""

    mean: float
    median: float
    p99: float
    max: float
    mean_without_top: float = Field(description="The mean without the largest 0.1% of tokens.")


class Interval(Record):
    """An estimate with its 95% interval, by resampling sequences."""

    value: float
    low: float
    high: float


class FeatureFidelity(Record):
    """One edited feature at its site, from the site's own input."""

    label: str
    edited_tokens: int = Field(description="Scored tokens where the hook changes the stream.")
    residual_error: float | None = Field(
        description="‖Δφ‖ / ‖φ‖ of this term over tokens it edits; null where it never did."
    )
    gate_f1: float | None = Field(
        description="Agreement of the served gate with the float32 hook's; null without a jump."
    )


class HookEvidence(Record):
    """What rounding leaves of one edit in the hook at a precision, as in `SiteEvidence`."""

    strength: Interval | None
    residual_error: float | None
    missed: int


class SiteEvidence(Record):
    """What an inserted layer's change shows of one edit, on the tokens where the edit acts."""

    acted_tokens: int = Field(description="Scored tokens where the edit acts.")
    acted_sequences: int = Field(description="Sequences that hold such tokens.")
    strength: Interval | None = Field(
        description="The median of ⟨made, wanted⟩ / ‖wanted‖², where wanted is the exact edit of "
        "the stream that the layer reads; 1 is the whole edit. Null where the edit never acted."
    )
    residual_error: float | None = Field(description="‖made − wanted‖ / ‖wanted‖, likewise.")
    false_firing: int = Field(
        description="Tokens that the layer changes by more than half of what the edit typically "
        "does, and the exact edit does not change."
    )
    missed: int = Field(
        description="Tokens that the exact edit changes so much, and not the layer."
    )
    error_over_hook: Interval | None = Field(
        description="The layer's distance from the change of the float32 hook, as a multiple of "
        "the hook's own at the same precision; null in float32."
    )
    hook: HookEvidence | None = Field(
        None,
        description="The same of the hook at this precision, h + dh rounded; null in float32. What "
        "it loses, no layer can make.",
    )


class GroupFidelity(Record):
    """Divergences of one group of tokens: where an edit acts, behind that, or elsewhere."""

    tokens: int
    edit_effect: float = Field(description="Mean KL(hook float32 ‖ base float32), in nats.")
    noise_floor: float | None = Field(description="Null in float32.")
    splice_error: float
    ratio: Interval | None = Field(description="Null in float32.")


class CurveFigures(Record):
    """How far an inserted layer alone is from the exact edit as p sweeps; see `ResponseCurve`."""

    deviation: float = Field(
        description="The largest |median of layer − φ| / max(|φ|, φ just beyond its bends), where "
        "the text reaches with p, or close to a bend."
    )
    at: float = Field(description="The p where it is largest.")
    beyond: float = Field(description="The same over the whole curve.")
    beyond_at: float
    height: float | None = Field(
        description="Σ layer·φ / Σ φ² where the text reaches; 1 is the whole edit. Null where φ is "
        "zero there."
    )
    hook_deviation: float = Field(
        0.0, description="The largest deviation of h + dh, rounded to the precision."
    )
    hook_height: float | None = Field(None, description="The height of h + dh, likewise.")


class EditFidelity(Record):
    """One edit, judged on the tokens that it changes."""

    label: str
    layer: int
    block: Block = Block.MLP
    chosen_sequences: int = Field(
        0,
        description="Sequences that count for it and were not drawn at random: prompts, and "
        "text that was found since the edit acts there.",
    )
    site: SiteEvidence
    acted: GroupFidelity | None = Field(description="Null where there are no such tokens.")
    behind: GroupFidelity | None = None
    elsewhere: GroupFidelity | None = None
    curve: CurveFigures | None = Field(
        None, description="Of its response curve; null where it has none."
    )
    outcome: Literal["shown", "fails", "not shown"] = "not shown"
    reason: str = Field("", description="Why; a half-sentence.")

    @property
    def place(self) -> Place:
        """Where the stream is edited."""
        return Place(self.layer, self.block)


class SiteFidelity(Record):
    """One inserted layer at one precision, as the served model runs it."""

    layer: int = Field(
        description="The base's layer whose output is edited; -1 for what its first reads."
    )
    block: Block = Field(
        Block.MLP, description="The block of that layer after which the stream is edited."
    )
    edited_tokens: int
    residual_error: Distribution | None = Field(
        description="‖dh_splice - dh_hook‖ / ‖dh_hook‖ per edited token; null if none was."
    )
    overall_residual_error: float | None = Field(
        description="The same ratio of root mean squares over all edited tokens together."
    )
    sink_tokens: int = Field(description="Tokens that the edit leaves alone for their norm.")
    largest_sink_change: float | None = Field(
        description="The largest change at a sink, relative to its norm."
    )
    elsewhere_change: float | None = Field(
        None, description="The median of ‖change‖ where no edit acts; null for no such token."
    )
    elsewhere_noise: float | None = Field(
        None,
        description="There, what the precision has put into the stream already, ‖h − h_float32‖.",
    )
    entering_error: float | None = Field(
        None, description="‖h − h_float32‖ / ‖h_float32‖ of the stream that enters the layer."
    )
    hook_entering_error: float | None = Field(
        None, description="The same of the hook at this precision; null in float32."
    )
    features: tuple[FeatureFidelity, ...] = ()

    @property
    def place(self) -> Place:
        """Where the stream is edited."""
        return Place(self.layer, self.block)


class PrecisionFidelity(Record):
    """The whole model at one precision."""

    dtype: str
    noise_floor: Distribution | None = Field(description="Null in float32: there is none.")
    splice_error: Distribution
    ratio: Interval | None = Field(description="Null in float32.")
    clipped_ratio: Interval | None = Field(
        description="The ratio with each token's divergence clipped at 0.05 nat."
    )
    effect_over_error: float | None = Field(
        description="Edit effect / splice error; null where the edit does nothing."
    )
    hook_top1_agreement: float = Field(description="hook at this precision with hook float32.")
    splice_top1_agreement: float = Field(description="splice at this precision with the same.")
    sites: tuple[SiteFidelity, ...]
    edits: tuple[EditFidelity, ...] = ()


class Band(Record):
    """A quantity over streams, at each point of a curve: the middle nine tenths of it."""

    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class CurvePrecision(Record):
    """A response curve at one precision, in units of φ along the edit's direction."""

    dtype: str
    layer: Band = Field(description="What the inserted layer writes.")
    hook: Band = Field(description="What the exact edit writes once h + dh is rounded.")


class ResponseCurve(Record):
    """What a layer writes as an edit's pre-activation p sweeps, on moved streams of the text.

    It is no text: it shows the layer alone, also at strengths that no text reached.
    """

    label: str
    layer: int
    block: Block = Block.MLP
    p: tuple[float, ...]
    exact: tuple[float, ...] = Field(description="φ(p) of the exact edit.")
    precisions: tuple[CurvePrecision, ...]


class PlainHook(Record):
    """How far a hook that also edits attention sinks would be from this edit."""

    divergence: Distribution = Field(description="KL(hook ‖ plain hook), float32.")
    tokens: int | None = Field(
        default=None,
        description="How many of the scored tokens that is over, the first ones; null in older "
        "reports, where it is all of them.",
    )


class TextRecord(Record):
    """The held-out text."""

    dataset: str
    revision: str | None
    tokens: int
    sequences: int
    sequence_length: int
    drawn_sequences: int | None = Field(
        None,
        description="The first of them, which were drawn at random: means over all tokens are over "
        "these. The others were chosen since edits act on them, and count for those edits alone.",
    )
    scanned_tokens: int = Field(0, description="Tokens that were read in search of those.")
    token_ids_sha256: str
    seed: int


class Greedy(Record):
    """Greedy continuations of held-out prompts by hook and splice, both at one precision."""

    dtype: str
    prompts: int
    new_tokens: int
    identical: int = Field(description="Prompts continued alike to the end.")
    mean_matching_tokens: float
    hook_to_reference: float = Field(
        description="The same mean for the hook at this precision against the hook in float32."
    )


class EditEffect(Record):
    """What the edit does to the text: the hook in float32 against the base in float32."""

    word: Literal["hardly visible", "visible", "strong", "breaks the text"]
    acted_share: float = Field(description="Of the scored tokens, where any edit acts.")
    acted_effect: float | None = Field(
        description="Mean KL(hook ‖ base) there, in nats; null where none acts."
    )
    base_text_loss: float = Field(description="Of the base on held-out text, in nats per token.")
    edited_text_loss: float = Field(description="Of the hook on the same.")
    base_own_loss: float = Field(
        description="Of the base on its own sampled continuations of prompts."
    )
    edited_own_loss: float = Field(
        description="Of the base on those of the hook, with the same random numbers."
    )
    edited_self_loss: float = Field(description="Of the hook on those.")
    prompts: int
    new_tokens: int
    same_continuations: int = Field(description="Prompts that both continue alike to the end.")


class FidelityReport(Rendered, Record):
    """The whole of `fidelity.json`."""

    schema_version: Literal[1, 2] = 2
    verdict: str = Field(description="One sentence; first on the terminal and on the card.")
    outcome: Literal["shown", "fails", "not shown"] = Field(
        "not shown", description="That of the worst edit."
    )
    passed: bool | None = Field(description="Against `required_ratio`; null where none was asked.")
    required_ratio: float | None
    text: TextRecord
    scored_tokens: int
    device: str
    edit_effect: Distribution
    precisions: tuple[PrecisionFidelity, ...]
    plain_hook: PlainHook | None = Field(
        description="Null where no site leaves sinks alone, or none of its tokens counts."
    )
    greedy: Greedy | None
    effect: EditEffect | None = Field(
        None, description="What the edit does, in words; it doesn't change the verdict."
    )
    answers: Answers | None = Field(
        None, description="Prompts as base and spliced checkpoint answer them."
    )
    curves: tuple[ResponseCurve, ...] = Field(
        (), description="One for every term of an edit that reads the stream."
    )
    approximations: tuple[str, ...] = Field(
        (), description="What the reference itself does not reproduce of the source features."
    )
    amounts: tuple[EditAmounts, ...] = Field(
        (), description="What the strengths of the edits come to."
    )
    conditions: tuple[EditHeld, ...] = Field(
        (), description="On how much calibration text the conditions of the edits held."
    )
    sae_fit: dict[str, SaeFit] = Field(
        default_factory=dict, description="Whether each SAE fits the base, by site."
    )
    warnings: tuple[str, ...] = Field(
        (), description="What calibration found that may not be what was meant."
    )

    def at(self, dtype: str) -> PrecisionFidelity:
        """The measurements at one precision.

        Raises:
            KeyError: it was not measured.
        """
        for precision in self.precisions:
            if precision.dtype == dtype:
                return precision
        raise KeyError(dtype)

    def require_passed(self) -> None:
        """Refuse what misses the ratio that was required.

        Raises:
            NotShownError: the text can't tell; the message says what helps.
            FidelityError: it does; the message is the verdict.
        """
        if self.passed is not False:
            return
        if self.outcome == "not shown":
            raise NotShownError(f"{self.verdict} {MORE_TEXT}")
        raise FidelityError(self.verdict)

    def content(self) -> Iterable[Part]:
        """The verdict, then tables per precision and per edited layer."""
        from hubsplice.fidelity.table import report_content

        return report_content(self)


def write_report(report: FidelityReport, folder: Path) -> Path:
    """Write `fidelity.json` into a folder, lists of numbers in one line each."""
    path = folder / REPORT
    text = _NUMBERS.sub(
        lambda found: f"[{' '.join(found[1].split())}]", report.model_dump_json(indent=2)
    )
    path.write_text(text + "\n", encoding="utf-8")
    return path


def read_report(folder: Path) -> FidelityReport | None:
    """The folder's report; None where it has none.

    Raises:
        CheckpointError: it can't be read, or is no report.
    """
    path = folder / REPORT
    try:
        data = read_plain(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    parse_object(data, source=str(path))
    try:
        return FidelityReport.model_validate_json(data)
    except ValidationError as error:
        problems = (
            f"  {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        )
        raise CheckpointError(
            f"{path}: not a valid fidelity report:\n" + "\n".join(problems)
        ) from None
