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
from hubsplice.fidelity.report import Interval, SiteEvidence
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


def _evidence(
    label: str, part: Site, frames: Mapping[str, _Frame], scored: Tensor, seed: int
) -> EditEvidence:
    shape, counted = scored.shape, scored.flatten()

    def resampled(above: Tensor, below: Tensor, tokens: Tensor) -> Interval | None:
        return ratio_of_means(
            above.reshape(shape), below.reshape(shape), tokens.reshape(shape), seed=seed
        )

    truth = part.delta(frames["reference"].stream)
    groups = TokenGroups.of((truth.norm(dim=-1) > 0).reshape(shape), scored)
    wanted, made = frames["layer"].part(part)
    size, error = wanted.norm(dim=-1), (made - wanted).square().sum(dim=-1)
    acts = (size > 0) & counted
    typical = float(size[acts].median()) if acts.any() else torch.inf
    fires = (made @ span(part).T.to(made.device)).norm(dim=-1) > typical / 2
    false = fires & (size == 0) & counted
    judged = acts | false
    total = float(size[acts].square().sum())
    against_hook = None
    if "hook" in frames:
        touched = ((truth.norm(dim=-1) > 0) & counted) | judged
        own, of_hook = (
            (frames[name].part(part)[1] - truth).square().sum(dim=-1) for name in ("layer", "hook")
        )
        squared = resampled(own, of_hook, touched)
        if squared is not None:
            against_hook = Interval(
                value=squared.value**0.5, low=squared.low**0.5, high=squared.high**0.5
            )
    return EditEvidence(
        label,
        groups,
        SiteEvidence(
            acted_tokens=int(acts.sum()),
            acted_sequences=int(acts.reshape(shape).any(dim=1).sum()),
            strength=median_of_tokens(
                ((made * wanted).sum(dim=-1) / size.square().clamp(min=1e-30)).reshape(shape),
                acts.reshape(shape),
                seed=seed,
            ),
            residual_error=(float(error[judged].sum()) / total) ** 0.5 if total else None,
            false_firing=int(false.sum()),
            missed=int(((size > typical / 2) & ~fires & counted).sum()),
            error_over_hook=against_hook,
        ),
    )
