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
4. *layer edits*: every inserted layer computes its edit. In s, what it adds to the stream is
   compared with what the hook would add to that same stream: over all tokens that the hook does
   not leave alone as sinks, |made - wanted| <= t |wanted| in root mean squares. A layer without
   edits must add exactly nothing.
5. *edit*: the edit is in what the engine serves. With the edit's effect |b - r| and the noise
   floor |r' - r| (0 in float32), |e - r| <= 1.25 |r' - r| + t |b - r|. Without any edit the effect
   is zero, and |e - r| <= 1.25 |r' - r| + 1e-3.

In both of the last, t is the share of an edit that may be missing or wrong: a compiled layer
approximates the hook, and one that is compiled for bfloat16 does so in float32 too. It is four
times what `fidelity.json` reports for float32, at least 0.01, and 0.05 where there is no report.
Where an edit has a threshold, it is at least 0.25 for a layer and 0.4 for the outputs, since the
few tokens right at a threshold are edited in one computation and not in the other; likewise for
an input that is normalised, whose scale a layer can't see. It is never more than 0.5.

Where the prompts never make a layer's edit act, or its effect on the outputs is less than twice
the floor, or than 0.01 nats in float32, nothing is proven, and the check does not pass: prompts on
which the edit acts, or a run in float32, would tell.

Rule 2 finds an engine that ignores a tensor, rules 4 and 5 find weights that are not the edit,
whatever the manifest says. A float32 run is the sharper one: it resolves what bfloat16 hides in its
noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from hubsplice.errors import CheckpointError
from hubsplice.fidelity.inserted import InsertedAt
from hubsplice.fidelity.report import FidelityReport, PrecisionFidelity
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site
from hubsplice.streams.model import Model, hooked, loaded
from hubsplice.terminal import Progress
from hubsplice.verifying.engines import Engine, Prompt, Request, ServedBy
from hubsplice.verifying.layer_edit import LayerEdit, observing
from hubsplice.verifying.reproduction import edits_anything
from hubsplice.verifying.result import Check, Record
from hubsplice.verifying.transcript import Scores, Transcript, score

Around = AbstractContextManager[None]

TIGHT = 1e-3
"""Nats by which two float32 computations of one model may differ."""

OVER_FLOOR = 1.25
"""How far above a noise floor an estimate of it from a few hundred tokens may lie."""

_LEAST_SHARE, _UNREPORTED_SHARE, _LARGEST_SHARE = 0.01, 0.05, 0.5
_LAYER_SHARE_AT_THRESHOLDS, _OUTPUT_SHARE_AT_THRESHOLDS = 0.25, 0.4
_OVER_REPORTED = 4.0
_LEAST_EFFECT = 0.01

ENGINE, SERVED, GREEDY = "engine", "weights served", "greedy tokens"
LAYERS, EDIT = "layer edits", "edit"
NAMES = (ENGINE, SERVED, GREEDY, LAYERS, EDIT)


class Behaviour(Record):
    """What was measured; means of absolute differences of log probabilities, in nats."""

    engine: str
    version: str
    device: str | None = Field(None, description="Its kind, such as cpu.")
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
    layer_errors: tuple[float | None, ...] = Field(
        description="Of each inserted layer in float32: what is missing from its edit, or wrong, "
        "relative to the edit; null where no token is edited, or transformers can't load it."
    )


@dataclass(frozen=True, eq=False)
class Trial:
    """What an engine is asked to prove.

    Attributes:
        spliced: the checkpoint's folder.
        base: the base's.
        intervention: the edit.
        inserted: where in the checkpoint the layer of each of its sites is that has one.
        report: the checkpoint's own, if it has one.
        dtype: the precision to serve in, such as `bfloat16`.
        prompts: token ids.
        new_tokens: how many are generated after each prompt.
        in_biases: the sites that a bias carries; no layer was inserted for them.
    """

    spliced: Path
    base: Path
    intervention: Intervention
    inserted: tuple[InsertedAt, ...]
    report: FidelityReport | None
    dtype: str
    prompts: Sequence[Prompt]
    new_tokens: int
    in_biases: frozenset[Place] = frozenset()

    @property
    def sites_of_layers(self) -> tuple[Site, ...]:
        """The sites that `inserted` is for."""
        return tuple(s for s in self.intervention.sites if s.place not in self.in_biases)

    @property
    def allowed_share(self) -> float:
        """The share of the edit that may be missing from the outputs, or wrong."""
        precise = self._precise
        over = precise.effect_over_error if precise else None
        # Divergences go with the square of differences.
        reported = over**-0.5 if over else None
        return _allowed(reported, self.intervention.sites, _OUTPUT_SHARE_AT_THRESHOLDS)

    def allowed_layer_share(self, site: Site) -> float:
        """The share of a site's edit that its layer may leave out, or get wrong."""
        sites = self._precise.sites if self._precise else ()
        reported = next((s.overall_residual_error for s in sites if s.place == site.place), None)
        return _allowed(reported, [site], _LAYER_SHARE_AT_THRESHOLDS)

    @property
    def _precise(self) -> PrecisionFidelity | None:
        precisions = self.report.precisions if self.report else ()
        return next((p for p in precisions if p.dtype == "float32"), None)


def _allowed(reported: float | None, sites: Sequence[Site], at_thresholds: float) -> float:
    share = _UNREPORTED_SHARE
    if reported is not None:
        share = max(_OVER_REPORTED * reported, _LEAST_SHARE)
    terms = [term for site in sites for term in site.terms]
    if any(
        t.function.has_jump or t.condition or t.normalization is not Normalization.NONE
        for t in terms
    ):
        share = max(share, at_thresholds)
    return min(share, _LARGEST_SHARE)


def behaviour_checks(
    trial: Trial, engine: Engine, progress: Progress
) -> tuple[tuple[Check, ...], Behaviour | None]:
    """Run an engine, and judge what it serves.

    Returns:
        The checks in `NAMES`, and what was measured; None where the engine failed.

    Raises:
        UnsupportedError: the engine is not there.
        CheckpointError: the base can't be loaded.
    """
    step = _step(progress, f"running {engine.name} in {trial.dtype}")
    try:
        transcripts, answered_by = engine.run(
            Request(trial.spliced, trial.dtype, trial.prompts, trial.new_tokens), step
        )
    except CheckpointError as error:
        return _no_answer(str(error)), None
    served = torch.cat([transcript.logprobs for transcript in transcripts])
    if not served.isfinite().all():
        count = int((~served.isfinite()).sum())
        return _no_answer(f"{count} of {len(served)} log probabilities are not finite"), None
    readings = _Readings.of(trial, transcripts, progress)
    behaviour = _measured(trial, engine, answered_by, transcripts, served, readings)
    answered = Check.of(
        ENGINE,
        [],
        f"{engine.name} {answered_by.version} in {trial.dtype}: {behaviour.prompts} prompts, "
        f"{behaviour.prompt_tokens} tokens read and {behaviour.generated_tokens} generated",
    )
    return (
        answered,
        _served_check(behaviour, readings),
        _greedy_check(transcripts, readings),
        _layers_check(trial, readings),
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
    layers: tuple[LayerEdit, ...]
    unloadable: str

    @staticmethod
    def of(trial: Trial, transcripts: Sequence[Transcript], progress: Progress) -> _Readings:
        def read(
            folder: Path, dtype: str, what: str, around: Callable[[Model], Around] = _as_it_is
        ) -> Scores:
            step = _step(progress, f"reading with the {what} in {dtype}")
            with loaded(folder, getattr(torch, dtype)) as model, around(model):
                return score(model, transcripts, step)

        def with_hook(model: Model) -> Around:
            return hooked(model, trial.intervention)

        layers = tuple(LayerEdit(s) for s in trial.sites_of_layers)

        def observed(model: Model) -> Around:
            return observing(model, zip(trial.inserted, layers, strict=True))

        base = read(trial.base, "float32", "base")
        hook = read(trial.base, "float32", "hook", with_hook)
        hook_served = splice = splice_served = None
        unloadable = ""
        if trial.dtype != "float32":
            hook_served = read(trial.base, trial.dtype, "hook", with_hook)
        try:
            splice = read(trial.spliced, "float32", "splice", observed)
            if trial.dtype != "float32":
                splice_served = read(trial.spliced, trial.dtype, "splice")
        except CheckpointError as error:
            unloadable = str(error)
        return _Readings(base, hook, hook_served, splice, splice_served, layers, unloadable)


def _as_it_is(_model: Model) -> Around:
    return nullcontext()


def _measured(
    trial: Trial,
    engine: Engine,
    answered_by: ServedBy,
    transcripts: Sequence[Transcript],
    served: Tensor,
    readings: _Readings,
) -> Behaviour:
    hook, splice = readings.hook.logprobs, readings.splice
    floor, own = readings.hook_served, readings.splice_served
    return Behaviour(
        engine=engine.name,
        version=answered_by.version,
        device=answered_by.device,
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
        layer_errors=tuple(layer.error for layer in readings.layers),
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


def _layers_check(trial: Trial, readings: _Readings) -> Check:
    if readings.splice is None:
        return Check.impossible(LAYERS, "transformers can't load the checkpoint")
    problems, silent, shown = [], [], []
    for inserted, layer in zip(trial.inserted, readings.layers, strict=True):
        index, error = inserted.index, layer.error
        if not edits_anything(layer.site):
            if layer.made:
                problems.append(f"layer {index}: it has no edits, and changes the stream")
        elif error is None:
            silent.append(str(index))
        else:
            limit = trial.allowed_layer_share(layer.site)
            shown.append(f"layer {index}: {error:.2%} of its edit is missing or wrong")
            if not error <= limit:
                problems.append(f"{shown[-1]}, expected at most {limit:.2%}")
    if silent and not problems:
        return Check.impossible(
            LAYERS,
            f"no token of these prompts is edited by layer {', '.join(silent)}; give others with "
            "--prompts",
        )
    return Check.of(LAYERS, problems, "; ".join(shown) or "no layer has edits, and none adds any")


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
