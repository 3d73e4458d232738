"""`fidelity.json`: what was measured, in the words that reports, cards and docs share.

- edit effect: KL(hook float32 ‖ base float32), what the edit does;
- noise floor: KL(hook float32 ‖ hook at a precision), what that precision costs by itself;
- splice error: KL(hook float32 ‖ splice at a precision); ratio: splice error / noise floor.

Divergences are in nats per token, over held-out tokens; position 0 and attention sinks are not
scored.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hubsplice.errors import CheckpointError, FidelityError
from hubsplice.files.strict_json import parse_object
from hubsplice.intervention.place import Block, Place
from hubsplice.rendering.content import Part
from hubsplice.rendering.rendered import Rendered

REPORT = "fidelity.json"


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


class PlainHook(Record):
    """How far a hook that also edits attention sinks would be from this edit."""

    divergence: Distribution = Field(description="KL(hook ‖ plain hook), float32.")


class TextRecord(Record):
    """The held-out text."""

    dataset: str
    revision: str | None
    tokens: int
    sequences: int
    sequence_length: int
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


class FidelityReport(Rendered, Record):
    """The whole of `fidelity.json`."""

    schema_version: Literal[1] = 1
    verdict: str = Field(description="One sentence; first on the terminal and on the card.")
    passed: bool | None = Field(description="Against `required_ratio`; null where none was asked.")
    required_ratio: float | None
    text: TextRecord
    scored_tokens: int
    device: str
    edit_effect: Distribution
    precisions: tuple[PrecisionFidelity, ...]
    plain_hook: PlainHook | None = Field(description="Null where no site leaves sinks alone.")
    greedy: Greedy | None
    approximations: tuple[str, ...] = Field(
        (), description="What the reference itself does not reproduce of the source features."
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
            FidelityError: it does; the message is the verdict.
        """
        if self.passed is False:
            raise FidelityError(self.verdict)

    def content(self) -> Iterable[Part]:
        """The verdict, then tables per precision and per edited layer."""
        from hubsplice.fidelity.table import report_content

        return report_content(self)


def write_report(report: FidelityReport, folder: Path) -> Path:
    """Write `fidelity.json` into a folder."""
    path = folder / REPORT
    path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


def read_report(folder: Path) -> FidelityReport | None:
    """The folder's report; None where it has none.

    Raises:
        CheckpointError: it can't be read, or is no report.
    """
    path = folder / REPORT
    try:
        data = path.read_bytes()
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
