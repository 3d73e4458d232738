"""What an engine serves, against what the weights say and what the hook does.

The engine reads prompts and continues them greedily. Everything is then judged on the engine's
own tokens, prompt and continuation alike, by the logarithms of the probabilities that it gave to
them (e below). Four models read the same tokens in this process, each in one pass:

- b, the base in float32, and r, the base in float32 with the exact hook: the reference;
- s, the spliced checkpoint in float32, as transformers computes it;
- for a run in another precision, r' and s': the hook and the splice in that precision.

With |x - y| the mean absolute difference over all tokens, in nats, an engine passes when

1. *engine*: it loads the checkpoint and answers every prompt.
2. *weights served*: it computes what the weights say. In float32 no token differs by more than
   1e-3: max(e - s) <= 1e-3. In another precision only distributions can agree: the engine is no
   farther from float32 than transformers is in that precision, |e - s| <= 1.25 |s' - s| + 1e-3.
3. *greedy tokens*: it decodes what the weights say. No generated token lies farther below the
   likeliest one of s than twice what its probability may be off: 2e-3 in float32, and else twice
   max(s' - s), since a choice between two tokens can err by the error of both.
4. *edit*: the edit is in what it serves. With the edit's effect |b - r| and the noise floor
   |r' - r| (0 in float32), |e - r| <= 1.25 |r' - r| + t |b - r|, where t is the share of the edit
   that may be missing or wrong. A splice that was compiled for bfloat16 approximates the hook in
   float32 too, so t is four times the share that `fidelity.json` reports for float32, at least
   0.01 and at most 0.5: beyond that the engine would be as near to the base. It is 0.05 where
   there is no report. Where the effect on these prompts is less than twice the floor, or than
   0.01 nats in float32, nothing is proven, and the check does not pass: prompts on which the edit
   acts, or a run in float32, would tell. A checkpoint without edits must serve the base: there
   the effect is zero, and |e - r| <= 1.25 |r' - r| + 1e-3.

The second rule finds an engine that ignores a tensor, the fourth finds weights that are not the
edit, whatever the manifest says. A float32 run is the sharper one: it resolves what bfloat16 hides
in its noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from hubsplice.errors import CheckpointError
from hubsplice.fidelity.report import FidelityReport
from hubsplice.intervention import Intervention
from hubsplice.model import hooked, loaded
from hubsplice.terminal import Progress
from hubsplice.verify.engines import Engine, Prompt
from hubsplice.verify.reproduction import edits_anything
from hubsplice.verify.result import Check, Record
from hubsplice.verify.transcript import Scores, Transcript, score

TIGHT = 1e-3
"""Nats by which two float32 computations of one model may differ."""

OVER_FLOOR = 1.25
"""How far above a noise floor an estimate of it from a few hundred tokens may lie."""

_LEAST_SHARE, _UNREPORTED_SHARE, _LARGEST_SHARE = 0.01, 0.05, 0.5
_OVER_REPORTED = 4.0
_LEAST_EFFECT = 0.01

ENGINE, SERVED, GREEDY, EDIT = "engine", "weights served", "greedy tokens", "edit"
NAMES = (ENGINE, SERVED, GREEDY, EDIT)


class Behaviour(Record):
    """What was measured; means of absolute differences of log probabilities, in nats."""

    engine: str
    version: str
    dtype: str
    prompts: int
    prompt_tokens: int
    generated_tokens: int
    effect: float = Field(description="Base against hook, both float32.")
    noise_floor: float | None = Field(description="Hook at this precision; null in float32.")
    error: float = Field(description="Engine against the float32 hook.")
    largest_error: float
    allowed_share: float = Field(description="Of the effect, that may be missing or wrong.")
    serving_error: float | None = Field(
        description="Engine against the float32 splice in transformers; null if it can't load it."
    )
    largest_serving_error: float | None
    serving_floor: float | None = Field(
        description="transformers at this precision against itself in float32; null in float32."
    )


@dataclass(frozen=True, eq=False)
class Trial:
    """What an engine is asked to prove.

    Attributes:
        spliced: the checkpoint's folder.
        base: the base's.
        intervention: the edit.
        report: the checkpoint's own, if it has one.
        dtype: the precision to serve in, such as `bfloat16`.
        prompts: token ids.
        new_tokens: how many are generated after each prompt.
    """

    spliced: Path
    base: Path
    intervention: Intervention
    report: FidelityReport | None
    dtype: str
    prompts: Sequence[Prompt]
    new_tokens: int

    @property
    def allowed_share(self) -> float:
        """The share of the edit that may be missing or wrong, as the rules above have it."""
        precisions = self.report.precisions if self.report else ()
        for precision in precisions:
            if precision.dtype == "float32" and precision.effect_over_error:
                # Divergences go with the square of differences.
                reported = precision.effect_over_error**-0.5
                return min(max(_OVER_REPORTED * reported, _LEAST_SHARE), _LARGEST_SHARE)
        return _UNREPORTED_SHARE


def behaviour_checks(
    trial: Trial, engine: Engine, progress: Progress
) -> tuple[tuple[Check, ...], Behaviour | None]:
    """Run an engine, and judge what it serves.

    Returns:
        The four checks, and what was measured; None where the engine failed.

    Raises:
        UnsupportedError: the engine is not there.
        CheckpointError: the base can't be loaded.
    """
    step = _step(progress, f"running {engine.name} in {trial.dtype}")
    try:
        transcripts, version = engine.run(
            trial.spliced, trial.dtype, trial.prompts, trial.new_tokens, step
        )
    except CheckpointError as error:
        return _no_answer(str(error)), None
    served = torch.cat([transcript.logprobs for transcript in transcripts])
    if not served.isfinite().all():
        count = int((~served.isfinite()).sum())
        return _no_answer(f"{count} of {len(served)} log probabilities are not finite"), None
    readings = _Readings.of(trial, transcripts, progress)
    behaviour = _measured(trial, engine, version, transcripts, served, readings)
    answered = Check.of(
        ENGINE,
        [],
        f"{engine.name} {version} in {trial.dtype}: {behaviour.prompts} prompts, "
        f"{behaviour.prompt_tokens} tokens read and {behaviour.generated_tokens} generated",
    )
    return (
        answered,
        _served_check(behaviour, readings),
        _greedy_check(transcripts, readings),
        _edit_check(behaviour, trial.intervention),
    ), behaviour


@dataclass(frozen=True, eq=False)
class _Readings:
    """The same tokens as read by the models of this process; names as in the rules above."""

    base: Scores
    hook: Scores
    hook_served: Scores | None
    splice: Scores | None
    splice_served: Scores | None
    unloadable: str

    @staticmethod
    def of(trial: Trial, transcripts: Sequence[Transcript], progress: Progress) -> _Readings:
        def read(folder: Path, dtype: str, hook: Intervention | None, what: str) -> Scores:
            step = _step(progress, f"{what} in {dtype}")
            with (
                loaded(folder, getattr(torch, dtype)) as model,
                hooked(model, hook) if hook else nullcontext(),
            ):
                return score(model, transcripts, step)

        edit = trial.intervention
        base = read(trial.base, "float32", None, "reading with the base")
        hook = read(trial.base, "float32", edit, "reading with the hook")
        hook_served = splice = splice_served = None
        unloadable = ""
        if trial.dtype != "float32":
            hook_served = read(trial.base, trial.dtype, edit, "reading with the hook")
        try:
            splice = read(trial.spliced, "float32", None, "reading with the splice")
            if trial.dtype != "float32":
                splice_served = read(trial.spliced, trial.dtype, None, "reading with the splice")
        except CheckpointError as error:
            unloadable = str(error)
        return _Readings(base, hook, hook_served, splice, splice_served, unloadable)


def _measured(
    trial: Trial,
    engine: Engine,
    version: str,
    transcripts: Sequence[Transcript],
    served: Tensor,
    readings: _Readings,
) -> Behaviour:
    hook, splice = readings.hook.logprobs, readings.splice
    floor, own = readings.hook_served, readings.splice_served
    return Behaviour(
        engine=engine.name,
        version=version,
        dtype=trial.dtype,
        prompts=len(transcripts),
        prompt_tokens=sum(len(t.prompt) for t in transcripts),
        generated_tokens=sum(len(t.tokens) for t in transcripts),
        effect=_mean(readings.base.logprobs, hook),
        noise_floor=None if floor is None else _mean(floor.logprobs, hook),
        error=_mean(served, hook),
        largest_error=_largest(served, hook),
        allowed_share=trial.allowed_share,
        serving_error=None if splice is None else _mean(served, splice.logprobs),
        largest_serving_error=None if splice is None else _largest(served, splice.logprobs),
        serving_floor=(
            None if own is None or splice is None else _mean(own.logprobs, splice.logprobs)
        ),
    )


def _served_check(found: Behaviour, readings: _Readings) -> Check:
    if found.serving_error is None or found.largest_serving_error is None:
        return Check.of(SERVED, [readings.unloadable], "")
    if found.serving_floor is None:
        said = f"at most {found.largest_serving_error:.2g} nats from transformers at any token"
        limit = f"expected at most {TIGHT:g}"
        good = found.largest_serving_error <= TIGHT
    else:
        said = f"{found.serving_error:.3g} nats from the float32 splice on average"
        limit = f"transformers in {found.dtype}: {found.serving_floor:.3g}"
        good = found.serving_error <= OVER_FLOOR * found.serving_floor + TIGHT
    return Check.of(SERVED, [] if good else [f"{said}; {limit}"], f"{said} ({limit})")


def _greedy_check(transcripts: Sequence[Transcript], readings: _Readings) -> Check:
    splice, own = readings.splice, readings.splice_served
    if splice is None:
        return Check.impossible(GREEDY, "transformers can't load the checkpoint")
    generated = torch.cat([transcript.generated for transcript in transcripts])
    gaps = (splice.best - splice.logprobs)[generated]
    off = TIGHT if own is None else max(TIGHT, _largest(own.logprobs, splice.logprobs))
    wrong = gaps > 2 * off
    first = int((gaps == 0).sum())
    problems = [
        f"{int(wrong.sum())} of {len(gaps)} tokens are not what the weights choose: up to "
        f"{float(gaps.max()):.3g} nats below the likeliest, expected at most {2 * off:.2g}"
    ]
    return Check.of(
        GREEDY,
        problems if wrong.any() else [],
        f"{first} of {len(gaps)} are the first choice of the float32 splice, the others within "
        f"{2 * off:.2g} nats of it",
    )


def _edit_check(found: Behaviour, intervention: Intervention) -> Check:
    floor = found.noise_floor or 0.0
    said = f"{found.error:.3g} nats from the hook on average (at most {found.largest_error:.2g})"
    if found.noise_floor is not None:
        said += f", noise floor {floor:.3g}"
    if not any(map(edits_anything, intervention.sites)):
        good = found.error <= OVER_FLOOR * floor + TIGHT
        return Check.of(EDIT, [] if good else [said], f"nothing is edited; {said}")
    said += f", effect of the edit {found.effect:.3g}"
    if found.effect < max(2 * floor, _LEAST_EFFECT):
        return Check.impossible(
            EDIT,
            f"these prompts hardly show the edit ({said}); give others with --prompts"
            + ("" if found.noise_floor is None else ", or use --dtype float32"),
        )
    limit = OVER_FLOOR * floor + found.allowed_share * found.effect
    return Check.of(
        EDIT,
        [] if found.error <= limit else [f"{said}; expected at most {limit:.3g} from the hook"],
        f"{said}, allowed {limit:.3g}",
    )


def _no_answer(problem: str) -> tuple[Check, ...]:
    others = (Check.impossible(name, "the engine gave no answer") for name in NAMES[1:])
    return (Check.of(ENGINE, [problem], ""), *others)


def _mean(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean())


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _step(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)
