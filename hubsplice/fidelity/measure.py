"""The measurement: base, hook and splice over held-out text, one model in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hubsplice.fidelity.divergence import Comparison, LogitScale, Readable, compare
from hubsplice.fidelity.inserted import InsertedAt
from hubsplice.fidelity.report import (
    Distribution,
    FidelityReport,
    Greedy,
    PlainHook,
    PrecisionFidelity,
    TextRecord,
)
from hubsplice.fidelity.runs import (
    Run,
    greedy_tokens,
    head_weight,
    logit_scale,
    run_model,
)
from hubsplice.fidelity.sites import site_fidelity
from hubsplice.fidelity.statistics import distribution, ratio_of_means
from hubsplice.fidelity.verdict import verdict
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import stream_at
from hubsplice.streams.model import editing_sinks, hooked, loaded
from hubsplice.terminal import Progress
from hubsplice.text.sequences import TokenSequences

CLIP = 0.05
"""Nats. One chaotic token can carry a mean; the clipped ratio shows what the others do."""

_PROMPTS, _PROMPT_TOKENS, _NEW_TOKENS = 16, 24, 24


@dataclass(frozen=True, eq=False)
class Subject:
    """What is measured.

    Attributes:
        base: the base's folder.
        spliced: the spliced checkpoint's folder.
        intervention: the edit.
        inserted: the inserted layers, in order, one for each site that has one.
        dtype: the serving precision.
        approximations: what the edit does not reproduce of its source features.
        in_biases: the sites that a bias carries: no layer is inserted after them.
    """

    base: Path
    spliced: Path
    intervention: Intervention
    inserted: tuple[InsertedAt, ...]
    dtype: torch.dtype
    approximations: tuple[str, ...] = ()
    in_biases: frozenset[Place] = frozenset()

    @property
    def sites_of_layers(self) -> tuple[Site, ...]:
        """The sites that `inserted` is for."""
        return tuple(s for s in self.intervention.sites if s.place not in self.in_biases)


def measure_fidelity(
    subject: Subject,
    text: TokenSequences,
    *,
    require: float | None,
    progress: Progress,
) -> FidelityReport:
    """Measure how far the spliced checkpoint is from the hook.

    Args:
        subject: what is measured.
        text: tokens that calibration never saw.
        require: the largest ratio that passes, or None.
        progress: told of every step.
    """
    precise = _Precise.of(subject, text.ids, progress)
    scored = precise.scored
    precisions = []
    greedy = None
    if subject.dtype is not torch.float32:
        served = _Served.of(subject, text.ids, progress)
        precisions.append(
            _precision(subject, served.splice, precise, served.comparisons(precise), text.seed)
        )
        greedy = _greedy(subject.dtype, precise.greedy, served.hook_greedy, served.splice_greedy)
    splice = _run_splice(subject, text.ids, torch.float32, progress)
    exact = compare(
        precise.readable(precise.hook.hidden),
        {
            "base": precise.readable(precise.base),
            "plain": precise.readable(precise.plain),
            "splice": precise.readable(splice.hidden),
        },
    )
    precisions = [
        p.model_copy(update={"effect_over_error": _over(exact["base"], p.splice_error, scored)})
        for p in (*precisions, _precision(subject, splice, precise, exact, text.seed))
    ]
    sentence, passed = verdict(precisions[0], require)
    return FidelityReport(
        verdict=sentence,
        passed=passed,
        required_ratio=require,
        text=TextRecord(
            dataset=text.dataset,
            revision=text.revision,
            tokens=text.ids.numel(),
            sequences=text.ids.shape[0],
            sequence_length=text.ids.shape[1],
            token_ids_sha256=text.sha256,
            seed=text.seed,
        ),
        scored_tokens=int(scored.sum()),
        device="cuda" if torch.cuda.is_available() else "cpu",
        edit_effect=_summary(exact["base"], scored),
        precisions=tuple(precisions),
        plain_hook=(
            PlainHook(divergence=_summary(exact["plain"], scored))
            if any(math.isfinite(site.sink_norm) for site in subject.intervention.sites)
            else None
        ),
        greedy=greedy,
        approximations=subject.approximations,
    )


@dataclass(frozen=True, eq=False)
class _Precise:
    """The float32 base without the hook, with it, and with a hook that edits sinks as well."""

    head: Tensor
    scale: LogitScale
    base: Tensor
    hook: Run
    plain: Tensor
    streams: dict[Place, Tensor]
    scored: Tensor
    greedy: Tensor

    @staticmethod
    def of(subject: Subject, ids: Tensor, progress: Progress) -> _Precise:
        edit = subject.intervention
        with loaded(subject.base, torch.float32) as model:
            base = run_model(model, ids, (), _step(progress, "measuring the base in float32"))
            streams = stream_at(
                model,
                ids,
                [site.place for site in edit.sites],
                edit,
                _step(progress, "measuring the sites in float32"),
            )
            with hooked(model, edit):
                hook = run_model(model, ids, (), _step(progress, "measuring the hook in float32"))
                greedy = greedy_tokens(model, _prompts(ids), _NEW_TOKENS)
            with hooked(model, editing_sinks(edit)):
                plain = run_model(
                    model, ids, (), _step(progress, "measuring a plain hook in float32")
                )
            head, scale = head_weight(model), logit_scale(model)
        scored = torch.ones(ids.shape, dtype=torch.bool)
        scored[:, 0] = False
        for site in edit.sites:
            scored &= ~site.is_sink(streams[site.place]).reshape(ids.shape)
        return _Precise(head, scale, base.hidden, hook, plain.hidden, streams, scored, greedy)

    def readable(self, hidden: Tensor) -> Readable:
        return Readable(hidden, self.head, self.scale)


@dataclass(frozen=True, eq=False)
class _Served:
    """The hook on the base, and the splice, both at the serving precision."""

    head: Tensor
    hook: Run
    splice: Run
    hook_greedy: Tensor
    splice_greedy: Tensor

    @staticmethod
    def of(subject: Subject, ids: Tensor, progress: Progress) -> _Served:
        name = _name(subject.dtype)
        with loaded(subject.base, subject.dtype) as model, hooked(model, subject.intervention):
            hook = run_model(model, ids, (), _step(progress, f"measuring the hook in {name}"))
            hook_greedy = greedy_tokens(model, _prompts(ids), _NEW_TOKENS)
            head = head_weight(model)
        with loaded(subject.spliced, subject.dtype) as model:
            step = _step(progress, f"measuring the splice in {name}")
            splice = run_model(model, ids, subject.inserted, step)
            splice_greedy = greedy_tokens(model, _prompts(ids), _NEW_TOKENS)
        return _Served(head, hook, splice, hook_greedy, splice_greedy)

    def comparisons(self, precise: _Precise) -> dict[str, Comparison]:
        return compare(
            precise.readable(precise.hook.hidden),
            {
                "hook": Readable(self.hook.hidden, self.head, precise.scale),
                "splice": Readable(self.splice.hidden, self.head, precise.scale),
            },
        )


def _run_splice(subject: Subject, ids: Tensor, dtype: torch.dtype, progress: Progress) -> Run:
    with loaded(subject.spliced, dtype) as model:
        step = _step(progress, f"measuring the splice in {_name(dtype)}")
        return run_model(model, ids, subject.inserted, step)


def _precision(
    subject: Subject,
    splice: Run,
    precise: _Precise,
    found: dict[str, Comparison],
    seed: int,
) -> PrecisionFidelity:
    scored = precise.scored
    error = found["splice"]
    floor = found.get("hook")
    ratio = clipped = None
    if floor is not None:
        ratio = ratio_of_means(error.divergence, floor.divergence, scored, seed=seed)
        clipped = ratio_of_means(
            error.divergence.clamp(max=CLIP), floor.divergence.clamp(max=CLIP), scored, seed=seed
        )
    return PrecisionFidelity(
        dtype=_name(splice.hidden.dtype),
        noise_floor=None if floor is None else _summary(floor, scored),
        splice_error=_summary(error, scored),
        ratio=ratio,
        clipped_ratio=clipped,
        effect_over_error=None,
        hook_top1_agreement=1.0 if floor is None else _agreement(floor, scored),
        splice_top1_agreement=_agreement(error, scored),
        sites=tuple(
            site_fidelity(site, inserted, seen, precise.streams[site.place], scored.flatten())
            for site, inserted, seen in zip(
                subject.sites_of_layers, subject.inserted, splice.passes, strict=True
            )
        ),
    )


def _greedy(dtype: torch.dtype, precise: Tensor, hook: Tensor, splice: Tensor) -> Greedy:
    def matching(a: Tensor, b: Tensor) -> Tensor:
        return (a == b).cumprod(dim=1).sum(dim=1)

    together = matching(hook, splice)
    return Greedy(
        dtype=_name(dtype),
        prompts=len(hook),
        new_tokens=hook.shape[1],
        identical=int((together == hook.shape[1]).sum()),
        mean_matching_tokens=float(together.double().mean()),
        hook_to_reference=float(matching(precise, hook).double().mean()),
    )


def _over(base: Comparison, error: Distribution, scored: Tensor) -> float | None:
    effect = float(base.divergence[scored].mean())
    return effect / error.mean if effect > 0 and error.mean > 0 else None


def _summary(found: Comparison, scored: Tensor) -> Distribution:
    return distribution(found.divergence[scored])


def _agreement(found: Comparison, scored: Tensor) -> float:
    return float(found.same_top[scored].double().mean())


def _prompts(ids: Tensor) -> Tensor:
    return ids[:_PROMPTS, :_PROMPT_TOKENS]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _step(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)
