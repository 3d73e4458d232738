"""What an inserted layer did to the stream, against what the hook would have done to it."""

from __future__ import annotations

import torch
from torch import Tensor

from hubsplice.fidelity.inserted import InsertedAt
from hubsplice.fidelity.report import FeatureFidelity, SiteFidelity
from hubsplice.fidelity.runs import LayerPass
from hubsplice.fidelity.statistics import distribution, f1_score
from hubsplice.intervention.site import Site


def site_fidelity(
    site: Site,
    inserted: InsertedAt,
    seen: LayerPass,
    reference: Tensor,
    scored: Tensor,
    hook: Tensor | None = None,
) -> SiteFidelity:
    """Measure one inserted layer.

    Args:
        site: the edit.
        inserted: the layer.
        seen: what passed through it in the served model.
        reference: the float32 hook model's stream at the site, shape [tokens, d], whose gates
            are the truth that served gates are compared with.
        scored: which tokens count, shape [tokens].
        hook: the stream at the site of the hook at the serving precision, shape [tokens, d]; None
            in float32.
    """
    before = seen.before.float()
    wanted = site.delta(before)
    made = seen.after.float() - before
    size = torch.linalg.vector_norm(wanted, dim=-1)
    error = torch.linalg.vector_norm(made - wanted, dim=-1)
    edited = (size > 0) & scored
    sinks = site.is_sink(before)
    change = torch.linalg.vector_norm(made, dim=-1) / torch.linalg.vector_norm(before, dim=-1)
    any_edited = bool(edited.any())
    # Neither in the served stream nor in the float32 one.
    nowhere = (size == 0) & (site.delta(reference).norm(dim=-1) == 0) & scored & ~sinks
    noise = torch.linalg.vector_norm(before - reference.float(), dim=-1)
    length = torch.linalg.vector_norm(made, dim=-1)
    return SiteFidelity(
        layer=site.layer,
        block=site.block,
        edited_tokens=int(edited.sum()),
        residual_error=distribution(error[edited] / size[edited]) if any_edited else None,
        overall_residual_error=(
            float(error[edited].square().sum().sqrt() / size[edited].square().sum().sqrt())
            if any_edited
            else None
        ),
        sink_tokens=int(sinks.sum()),
        largest_sink_change=float(change[sinks].max()) if sinks.any() else None,
        elsewhere_change=_median(length[nowhere]),
        elsewhere_noise=_median(noise[nowhere]),
        entering_error=_apart(before, reference, scored & ~sinks),
        hook_entering_error=None if hook is None else _apart(hook, reference, scored & ~sinks),
        features=_features(site, inserted, seen, made, reference, scored & ~sinks),
    )


def _features(
    site: Site,
    inserted: InsertedAt,
    seen: LayerPass,
    made: Tensor,
    reference: Tensor,
    scored: Tensor,
) -> tuple[FeatureFidelity, ...]:
    if not site.terms:
        return ()
    before = seen.before.float()[scored]
    scales = [term.normalization.apply(before)[1] for term in site.terms]
    wanted = site.activations(before) * torch.cat(scales, dim=1)
    found = _shares(site, made[scored])
    projections = site.projections(reference)[scored]
    result = []
    for number, term in enumerate(site.terms):
        edits = wanted[:, number] != 0
        error = None
        if found is not None and edits.any():
            gap = found[edits, number] - wanted[edits, number]
            error = float(gap.norm() / wanted[edits, number].norm())
        gates = [i for i, (owner, _, _) in enumerate(inserted.jump_gates) if owner == number]
        jumps = [kink.at for kink in term.function.kinks if kink.jump]
        score = None
        if len(gates) == 1 and len(jumps) == 1:
            fired = projections[:, number] > jumps[0]
            if term.condition is not None:
                fired &= term.condition.holds(reference[scored].float())
            served = seen.gates[scored][:, gates[0]]
            score = f1_score(served, fired)
        result.append(
            FeatureFidelity(
                label=term.label,
                edited_tokens=int(edits.sum()),
                residual_error=error,
                gate_f1=score,
            )
        )
    return tuple(result)


def _shares(site: Site, made: Tensor) -> Tensor | None:
    """How much of each direction the change `made` [tokens, d] holds, shape [tokens, terms].

    None where the directions are too many or too alike to tell apart, or one is zero.
    """
    directions = torch.stack([term.direction for term in site.terms]).double()
    if len(directions) > directions.shape[1] // 2:
        return None
    lengths = directions.norm(dim=1, keepdim=True)
    if not lengths.all() or torch.linalg.cond(directions / lengths) > 1e3:
        return None
    return (made.double() @ torch.linalg.pinv(directions)).float()


def _median(values: Tensor) -> float | None:
    """The median, which a few tokens on the ramp of a jump don't move."""
    return float(values.median()) if len(values) else None


def _apart(h: Tensor, reference: Tensor, tokens: Tensor) -> float | None:
    """The median over tokens of ‖h − reference‖ / ‖reference‖.

    It is the median, since now and then a token becomes a sink in one of two precisions.
    """
    if not tokens.any():
        return None
    truth = reference[tokens].float()
    return float(((h[tokens].float() - truth).norm(dim=-1) / truth.norm(dim=-1)).median())
