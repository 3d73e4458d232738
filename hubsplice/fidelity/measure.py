"""The measurement: base, hook and splice over held-out text, in step, one model at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubsplice.fidelity.acting import TokenGroups
from hubsplice.fidelity.beginning import begins_alike
from hubsplice.fidelity.curve import Response, curves, responses, with_figures
from hubsplice.fidelity.divergence import Comparison, Readable, compare, require_finite
from hubsplice.fidelity.effect import Continued, edit_effect, scored_sequences
from hubsplice.fidelity.evidence import EditEvidence, SiteStreams, site_evidence
from hubsplice.fidelity.inserted import InsertedAt
from hubsplice.fidelity.optional import Missing
from hubsplice.fidelity.passes import plain_sequences
from hubsplice.fidelity.report import (
    Distribution,
    EditEffect,
    EditFidelity,
    FidelityReport,
    Greedy,
    GroupFidelity,
    PlainHook,
    PrecisionFidelity,
    TextRecord,
)
from hubsplice.fidelity.runs import (
    Run,
    Variant,
    beginnings,
    first_difference,
    greedy_tokens,
    head_weight,
    in_step,
    logit_scale,
    run_variants,
    with_hook,
)
from hubsplice.fidelity.sites import site_fidelity
from hubsplice.fidelity.statistics import distribution, ratio_of_means
from hubsplice.fidelity.verdict import judged, verdict
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site
from hubsplice.streams.acting import ActingText
from hubsplice.streams.in_step import Entered
from hubsplice.streams.model import Model, editing_sinks, hooked, loaded
from hubsplice.terminal import Progress
from hubsplice.text.sequences import TokenSequences

_FLOOR = "the hook at the serving precision"
_BASE, _PLAIN = "the base", "a hook that edits sinks"

CLIP = 0.05
"""Nats. One chaotic token can carry a mean; the clipped ratio shows what the others do."""


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
        in_biases: the sites that a bias carries, and the index in the result of the layer that has
            that bias: no layer is inserted after them.
        adapted: where `spliced` is a carrier, puts an adapter on the model that is loaded from it.
    """

    base: Path
    spliced: Path
    intervention: Intervention
    inserted: tuple[InsertedAt, ...]
    dtype: torch.dtype
    approximations: tuple[str, ...] = ()
    in_biases: Mapping[Place, int] = field(default_factory=dict)
    adapted: Callable[[Model], AbstractContextManager[None]] | None = None

    @property
    def sites_of_layers(self) -> tuple[Site, ...]:
        """The sites that `inserted` is for."""
        return tuple(s for s in self.intervention.sites if s.place not in self.in_biases)

    def on(self, model: Model) -> AbstractContextManager[None]:
        """The adapter on the spliced model, where there is one."""
        return nullcontext() if self.adapted is None else self.adapted(model)


@dataclass(frozen=True, eq=False)
class References:
    """Everything that a splice is compared with: base and hook, without any splice.

    Attributes:
        precise: in float32.
        served: at the serving precision; None where that is float32.
    """

    precise: _Precise
    served: _Served | None

    @staticmethod
    def of(
        base: Path,
        intervention: Intervention,
        text: TokenSequences,
        dtype: torch.dtype,
        progress: Progress,
        *,
        in_biases: Container[Place] = (),
    ) -> References:
        """Run base and hook over a text.

        Args:
            base: the base's folder.
            intervention: the hook.
            text: the text.
            dtype: the serving precision.
            progress: told of every step.
            in_biases: the places whose edit a splice has in a bias.
        """
        differ = first_difference((site.place for site in intervention.sites), in_biases)
        precise = _Precise.of(base, intervention, text, differ, progress)
        if dtype is torch.float32:
            return References(precise, None)
        served = _Served.of(base, intervention, text.ids, differ, dtype, progress)
        return References(precise, served)


def measure_fidelity(
    subject: Subject,
    acting: ActingText,
    *,
    require: float | None,
    progress: Progress,
    references: References | None = None,
) -> FidelityReport:
    """Measure how far the spliced checkpoint is from the hook.

    Args:
        subject: what is measured.
        acting: tokens that calibration never saw.
        require: the largest ratio that passes, or None.
        progress: told of every step.
        references: of the same base, intervention, text and precision; None makes them.
    """
    text = acting.sequences
    if references is None:
        references = References.of(
            subject.base,
            subject.intervention,
            text,
            subject.dtype,
            progress,
            in_biases=subject.in_biases,
        )
    precise, served = references.precise, references.served
    scored = precise.ordinary
    # What an adapter changes is in no file of the checkpoint.
    alike = subject.adapted is None and begins_alike(
        subject.base, subject.spliced, precise.entered.layer
    )
    greedy = None
    missing = Missing([*precise.missing, *(served.missing if served else ())])
    found: dict[str, tuple[Response, ...]] = {}
    runs: dict[str, tuple[Run, _Served | None]] = {}
    others: dict[str, Readable] = {}
    if served is not None:
        splice, continued, found[_name(subject.dtype)] = _run_splice(
            subject,
            text.ids,
            subject.dtype,
            precise,
            served.entered if alike else None,
            progress,
            missing=missing,
        )
        runs[_name(subject.dtype)] = splice, served
        # All have the base's output embeddings, byte for byte: one copy of them serves all.
        others[_FLOOR] = replace(precise.hook, hidden=served.hidden)
        others[_name(subject.dtype)] = replace(precise.hook, hidden=splice.hidden)
        greedy = _greedy(subject.dtype, precise.greedy, served.greedy, continued)
    splice, _, found[_name(torch.float32)] = _run_splice(
        subject,
        text.ids,
        torch.float32,
        precise,
        precise.entered if alike else None,
        progress,
        missing=None,
    )
    runs[_name(torch.float32)] = splice, None
    others[_name(torch.float32)] = replace(precise.hook, hidden=splice.hidden)
    # At once: the reference's logits are computed once for all of them.
    step = _step(progress, "comparing the hook with base and splice, token by token")
    errors = compare(precise.hook, {**precise.others, **others}, text.ids, step)
    effect = errors[_BASE]
    precisions = [
        _precision(
            subject,
            splice,
            precise,
            of_hook,
            effect,
            acting,
            floor=None if of_hook is None else errors[_FLOOR],
            error=errors[name],
        )
        for name, (splice, of_hook) in runs.items()
    ]
    compiled_for = _name(subject.dtype)
    precisions = [judged(with_figures(p, found[p.dtype]), compiled_for) for p in precisions]
    sentence, outcome, passed = verdict(precisions[0], require)
    return FidelityReport(
        verdict=sentence,
        outcome=outcome,
        passed=passed,
        required_ratio=require,
        text=TextRecord(
            dataset=text.dataset,
            revision=text.revision,
            tokens=text.tokens,
            sequences=text.ids.shape[0],
            sequence_length=text.ids.shape[1],
            drawn_sequences=text.drawn,
            scanned_tokens=acting.scanned,
            token_ids_sha256=text.sha256,
            seed=text.seed,
        ),
        scored_tokens=int(scored.sum()),
        device="cuda" if torch.cuda.is_available() else "cpu",
        edit_effect=_summary(effect, scored),
        precisions=tuple(precisions),
        plain_hook=_plain_hook(errors.get(_PLAIN), scored),
        greedy=greedy,
        effect=precise.words(subject.intervention, text, effect),
        curves=curves(found),
        approximations=subject.approximations,
        warnings=tuple(dict.fromkeys(missing.reasons)),
    )


@dataclass(frozen=True, eq=False)
class _Precise:
    """The float32 base with the hook, and what it is compared with whatever the splice is.

    `others` are the base without the hook, and with one that edits sinks as well; `entered` are the
    streams as far as all of these have them in common.
    `scored` are the tokens that count, shape [sequences, length], and `ordinary` those of them that
    are in sequences drawn at random: means over all tokens are over those.
    """

    hook: Readable
    streams: Mapping[Place, Tensor]
    others: Mapping[str, Readable]
    entered: Entered
    scored: Tensor
    ordinary: Tensor
    greedy: Tensor | None
    continued: Continued | None
    missing: tuple[str, ...]

    @staticmethod
    def of(
        base: Path,
        edit: Intervention,
        text: TokenSequences,
        differ: Place | None,
        progress: Progress,
    ) -> _Precise:
        ids = text.ids
        missing = Missing()
        with_edit = Variant(edit, [site.place for site in edit.sites])
        others = {_BASE: Variant()}
        if any(math.isfinite(site.sink_norm) for site in edit.sites):
            sequences = plain_sequences(*ids.shape)
            others[_PLAIN] = Variant(editing_sinks(edit), sequences=sequences)
        with loaded(base, torch.float32, keep=True) as model:
            step = _step(progress, "measuring base and hook in float32")
            variants = [with_edit, *others.values()]
            entered, (hook, *found) = run_variants(model, ids, variants, step, differ=differ)
            greedy, continued = _generated(model, edit, ids, missing)
            head, scale = head_weight(model), logit_scale(model)
        runs = dict(zip(others, found, strict=True))
        # What is lost already need not be compared with anything later on.
        require_finite({"the hook": hook.hidden, **{n: run.hidden for n, run in runs.items()}})
        scored = text.is_text
        scored[:, 0] = False
        for site in edit.sites:
            scored &= ~site.is_sink(hook.streams[site.place]).reshape(ids.shape)
        ordinary = scored.clone()
        ordinary[text.drawn :] = False
        return _Precise(
            Readable(hook.hidden, head, scale),
            hook.streams,
            {name: Readable(run.hidden, head, scale) for name, run in runs.items()},
            entered,
            scored,
            ordinary,
            greedy,
            continued,
            tuple(missing.reasons),
        )

    def words(
        self, edit: Intervention, text: TokenSequences, effect: Comparison
    ) -> EditEffect | None:
        """What the edit does to the text; None where nothing could be continued."""
        if self.continued is None:
            return None
        acted = torch.zeros_like(self.scored)
        for site in edit.sites:
            changed = site.delta(self.streams[site.place]).norm(dim=-1) > 0
            acted |= changed.reshape(acted.shape)
        assert effect.losses is not None
        part = scored_sequences(text.ids[: text.drawn])
        of_hook, of_base = (float(loss[:part].mean()) for loss in effect.losses)
        return edit_effect(
            self.continued, of_base, of_hook, effect.divergence, acted & self.scored, self.ordinary
        )


@dataclass(frozen=True, eq=False)
class _Served:
    """The hook on the base at the serving precision."""

    hidden: Tensor
    streams: Mapping[Place, Tensor]
    entered: Entered
    greedy: Tensor | None
    missing: tuple[str, ...]

    @staticmethod
    def of(
        base: Path,
        edit: Intervention,
        ids: Tensor,
        differ: Place | None,
        dtype: torch.dtype,
        progress: Progress,
    ) -> _Served:
        places = [site.place for site in edit.sites]
        missing = Missing()
        with loaded(base, dtype, keep=True) as model:
            step = _step(progress, f"measuring the hook in {_name(dtype)}")
            variant = Variant(edit, places)
            entered, (hook,) = run_variants(model, ids, [variant], step, differ=differ)
            with hooked(model, edit):
                greedy = _continuations(model, ids, missing)
        return _Served(hook.hidden, hook.streams, entered, greedy, tuple(missing.reasons))


def _run_splice(
    subject: Subject,
    ids: Tensor,
    dtype: torch.dtype,
    precise: _Precise,
    entered: Entered | None,
    progress: Progress,
    *,
    missing: Missing | None,
) -> tuple[Run, Tensor | None, tuple[Response, ...]]:
    with loaded(subject.spliced, dtype) as model, subject.on(model):
        step = _step(progress, f"measuring the splice in {_name(dtype)}")
        places = [Place(index) for index in subject.in_biases.values()]
        variant = Variant(places=places, inserted=subject.inserted)
        _, (run,) = run_variants(model, ids, [variant], step, entered=entered)
        continued = None if missing is None else _continuations(model, ids, missing)
        sites, streams = subject.sites_of_layers, precise.streams
        found = responses(model, sites, subject.inserted, streams, precise.scored, ids)
    return run, continued, found


def _precision(
    subject: Subject,
    splice: Run,
    precise: _Precise,
    served: _Served | None,
    effect: Comparison,
    acting: ActingText,
    *,
    floor: Comparison | None,
    error: Comparison,
) -> PrecisionFidelity:
    ordinary, seed = precise.ordinary, acting.sequences.seed
    ratio = clipped = None
    if floor is not None:
        ratio = ratio_of_means(error.divergence, floor.divergence, ordinary, seed=seed)
        clipped = ratio_of_means(
            error.divergence.clamp(max=CLIP), floor.divergence.clamp(max=CLIP), ordinary, seed=seed
        )
    summary = _summary(error, ordinary)
    return PrecisionFidelity(
        dtype=_name(splice.hidden.dtype),
        noise_floor=None if floor is None else _summary(floor, ordinary),
        splice_error=summary,
        ratio=ratio,
        clipped_ratio=clipped,
        effect_over_error=_over(effect, summary, ordinary),
        hook_top1_agreement=1.0 if floor is None else _agreement(floor, ordinary),
        splice_top1_agreement=_agreement(error, ordinary),
        sites=tuple(
            site_fidelity(
                site,
                inserted,
                seen,
                precise.streams[site.place],
                precise.scored.flatten(),
                None if served is None else served.streams[site.place],
            )
            for site, inserted, seen in zip(
                subject.sites_of_layers, subject.inserted, splice.passes, strict=True
            )
        ),
        edits=tuple(
            _edit(site, evidence, ordinary, effect, floor, error, acting)
            for site, streams in _streams(subject, splice, precise, served)
            for evidence in site_evidence(
                site,
                streams,
                precise.scored,
                counted=lambda label, place=site.place: acting.counts_for((place, label)),  # type: ignore[misc]
                seed=seed,
            )
        ),
    )


def _streams(
    subject: Subject, splice: Run, precise: _Precise, served: _Served | None
) -> Iterator[tuple[Site, SiteStreams]]:
    passes = dict(zip([s.place for s in subject.sites_of_layers], splice.passes, strict=True))
    for site in subject.intervention.sites:
        reference = precise.streams[site.place]
        hook = None if served is None else served.streams[site.place]
        if site.place in subject.in_biases:
            # The layers before are the same, so the bias is all that tells the two apart.
            before = reference if hook is None else hook
            after = splice.streams[Place(subject.in_biases[site.place])]
        else:
            before, after = passes[site.place].before, passes[site.place].after
        yield site, SiteStreams(reference, hook, before, after)


def _edit(
    site: Site,
    evidence: EditEvidence,
    ordinary: Tensor,
    effect: Comparison,
    floor: Comparison | None,
    error: Comparison,
    acting: ActingText,
) -> EditFidelity:
    def group(tokens: Tensor) -> GroupFidelity | None:
        if not tokens.any():
            return None
        return GroupFidelity(
            tokens=int(tokens.sum()),
            edit_effect=float(effect.divergence[tokens].mean()),
            noise_floor=None if floor is None else float(floor.divergence[tokens].mean()),
            splice_error=float(error.divergence[tokens].mean()),
            ratio=(
                None
                if floor is None
                else ratio_of_means(
                    error.divergence, floor.divergence, tokens, seed=acting.sequences.seed
                )
            ),
        )

    groups: TokenGroups = evidence.groups
    chosen = acting.counts_for((site.place, evidence.label))[acting.sequences.drawn :]
    return EditFidelity(
        label=evidence.label,
        layer=site.layer,
        block=site.block,
        chosen_sequences=int(chosen.sum()),
        site=evidence.site,
        acted=group(groups.acted),
        behind=group(groups.behind),
        elsewhere=group(groups.elsewhere & ordinary),
    )


def _continuations(model: Model, ids: Tensor, missing: Missing) -> Tensor | None:
    return missing.attempt("the greedy comparison", lambda: greedy_tokens(model, beginnings(ids)))


def _generated(
    model: Model, edit: Intervention, ids: Tensor, missing: Missing
) -> tuple[Tensor | None, Continued | None]:
    def continued() -> Continued | None:
        return missing.attempt("what the edit does to text", lambda: Continued.of(model, edit, ids))

    def greedy() -> Tensor | None:
        return _continuations(model, ids, missing)

    runs: list[Callable[[], Any]] = [with_hook(model, edit, greedy), continued]
    first, second = in_step(model, runs)
    return first, second


def _greedy(
    dtype: torch.dtype, precise: Tensor | None, hook: Tensor | None, splice: Tensor | None
) -> Greedy | None:
    if precise is None or hook is None or splice is None:
        return None

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


def _plain_hook(found: Comparison | None, scored: Tensor) -> PlainHook | None:
    if found is None:
        return None
    counted = scored[: len(found.divergence)]
    if not counted.any():
        return None
    return PlainHook(divergence=_summary(found, counted), tokens=int(counted.sum()))


def _summary(found: Comparison, scored: Tensor) -> Distribution:
    return distribution(found.divergence[scored])


def _agreement(found: Comparison, scored: Tensor) -> float:
    return float(found.same_top[scored].double().mean())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _step(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)
