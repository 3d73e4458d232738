"""What a layer's change shows of each edit, on the tokens that the edit changes.

A mean over all tokens says nothing of a feature that is active on one in a thousand. So each edit
is judged on its own tokens, in two ways.

*As a function.* The layer's change is compared with what the exact edit makes of the very stream
that the layer reads:

- the strength, the median of ⟨made, wanted⟩ / ‖wanted‖² over the tokens where the edit acts. It is
  1 for a right layer, 0 for a silent one, 0.5 for one at half strength, −1 for one that is turned
  round, and about 0 for one that writes along another direction. Rounding averages out of it, and
  the few tokens that lie on the ramp of a jump, half edited, don't move a median;
- the residual error, ‖made − wanted‖ / ‖wanted‖, which sees what the strength does not;
- false firing and misses: tokens where one of the two changes the stream by more than half of what
  the edit typically does, and the other does not.

An edit that is smaller than the spacing of a coarse stream is lost in it. So the same figures of
the hook at that precision stand beside: h + dh, rounded.

*In the model.* The layer's change is compared with the change of the float32 hook in its own
stream. The hook at the serving precision errs there too: it rounds h + dh, and gates flip because
the served stream is not the float32 one. The ratio of the two errors says what the layer adds to
that. A layer at another place reads another stream, and shows here.

Where a site has several edits, what the others should contribute is taken away first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hubsplice.fidelity.acting import TokenGroups, span
from hubsplice.fidelity.report import HookEvidence, Interval, SiteEvidence
from hubsplice.fidelity.statistics import median_of_tokens, ratio_of_means
from hubsplice.intervention.edits import edits_of
from hubsplice.intervention.site import Site


@dataclass(frozen=True, eq=False)
class SiteStreams:
    """What passes a site over the held-out text, each of shape [tokens, d].

    Attributes:
        reference: the stream of the float32 hook model before the edit.
        hook: the same at the serving precision; None in float32.
        before: the stream that enters the layer in the served model.
        after: the stream that leaves it.
    """

    reference: Tensor
    hook: Tensor | None
    before: Tensor
    after: Tensor


@dataclass(frozen=True, eq=False)
class EditEvidence:
    """One edit at its site.

    Attributes:
        label: what the edit is called.
        groups: of the text's tokens.
        site: the figures.
    """

    label: str
    groups: TokenGroups
    site: SiteEvidence


def site_evidence(
    site: Site,
    streams: SiteStreams,
    scored: Tensor,
    *,
    seed: int,
    counted: Callable[[str], Tensor] | None = None,
) -> tuple[EditEvidence, ...]:
    """The evidence of each edit of a site.

    Args:
        site: the edits.
        streams: what passed it.
        scored: which tokens count, shape [sequences, length].
        seed: of the resampling.
        counted: which sequences count for the edit with a label, shape [sequences]; all by default.
    """
    frames = {
        "reference": _Frame.of(site, streams.reference, site.edit(streams.reference)),
        "layer": _Frame.of(site, streams.before, streams.after),
    }
    if streams.hook is not None:
        frames["hook"] = _Frame.of(site, streams.hook, site.edit(streams.hook))
    return tuple(
        _evidence(
            label,
            part,
            frames,
            scored if counted is None else scored & counted(label)[:, None],
            seed,
        )
        for label, part in edits_of(site)
    )


@dataclass(frozen=True, eq=False)
class _Frame:
    """A stream [tokens, d] at a site, how it is changed there, and the exact edit's change."""

    stream: Tensor
    change: Tensor
    whole: Tensor

    @staticmethod
    def of(site: Site, before: Tensor, after: Tensor) -> _Frame:
        """A stream before its edit and after it, in its own precision."""
        wide = before.float()
        return _Frame(wide, after.float() - wide, site.delta(before))

    def part(self, part: Site) -> tuple[Tensor, Tensor]:
        """What one edit should change, and what was changed without what the others should."""
        wanted = part.delta(self.stream)
        return wanted, self.change - (self.whole - wanted)


@dataclass(frozen=True, eq=False)
class _Made:
    """What was made of one edit in a frame, against the exact edit of the same stream.

    Tokens have shape [tokens], and the tokens that count are among them alone.
    """

    acts: Tensor
    false: Tensor
    missed: Tensor
    strength: Interval | None
    residual_error: float | None

    @staticmethod
    def of(frame: _Frame, part: Site, scored: Tensor, seed: int) -> _Made:
        counted = scored.flatten()
        wanted, made = frame.part(part)
        size, error = wanted.norm(dim=-1), (made - wanted).square().sum(dim=-1)
        acts = (size > 0) & counted
        typical = float(size[acts].median()) if acts.any() else torch.inf
        fires = (made @ span(part).T.to(made.device)).norm(dim=-1) > typical / 2
        false = fires & (size == 0) & counted
        total = float(size[acts].square().sum())
        return _Made(
            acts,
            false,
            (size > typical / 2) & ~fires & counted,
            median_of_tokens(
                ((made * wanted).sum(dim=-1) / size.square().clamp(min=1e-30)).reshape(
                    scored.shape
                ),
                acts.reshape(scored.shape),
                seed=seed,
            ),
            (float(error[acts | false].sum()) / total) ** 0.5 if total else None,
        )


def _evidence(
    label: str, part: Site, frames: Mapping[str, _Frame], scored: Tensor, seed: int
) -> EditEvidence:
    truth = part.delta(frames["reference"].stream)
    acts = truth.norm(dim=-1) > 0
    layer, hook, against_hook = _Made.of(frames["layer"], part, scored, seed), None, None
    if "hook" in frames:
        own = _Made.of(frames["hook"], part, scored, seed)
        hook = HookEvidence(
            strength=own.strength,
            residual_error=own.residual_error,
            missed=int(own.missed.sum()),
        )
        touched = (acts & scored.flatten()) | layer.acts | layer.false
        against_hook = _against_hook(frames, part, truth, touched.reshape(scored.shape), seed)
    return EditEvidence(
        label,
        TokenGroups.of(acts.reshape(scored.shape), scored),
        SiteEvidence(
            acted_tokens=int(layer.acts.sum()),
            acted_sequences=int(layer.acts.reshape(scored.shape).any(dim=1).sum()),
            strength=layer.strength,
            residual_error=layer.residual_error,
            false_firing=int(layer.false.sum()),
            missed=int(layer.missed.sum()),
            error_over_hook=against_hook,
            hook=hook,
        ),
    )


def _against_hook(
    frames: Mapping[str, _Frame], part: Site, truth: Tensor, tokens: Tensor, seed: int
) -> Interval | None:
    """The layer's distance from the true change over the hook's, on tokens [sequences, length]."""
    own, of_hook = (
        (frames[name].part(part)[1] - truth).square().sum(dim=-1).reshape(tokens.shape)
        for name in ("layer", "hook")
    )
    squared = ratio_of_means(own, of_hook, tokens, seed=seed)
    if squared is None:
        return None
    return Interval(value=squared.value**0.5, low=squared.low**0.5, high=squared.high**0.5)
