"""From a splice of the recipe to a site of the intervention, once calibration has been there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hubsplice.compiling.sources import SpliceSources
from hubsplice.edits.base import Edit
from hubsplice.errors import HubspliceError
from hubsplice.features.base import Feature, SiteStatistics
from hubsplice.features.extract import CalibratedGate
from hubsplice.features.max_activation import max_activations
from hubsplice.features.sae import LoadedSae
from hubsplice.features.topk import calibrate_thresholds
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site, Term
from hubsplice.recipe.models import Splice
from hubsplice.streams.calibration import median_norm

_COMPETING = ("topk", "abstopk")


@dataclass(frozen=True, eq=False)
class LoweredSplice:
    """A splice as ridge functions.

    Attributes:
        site: the terms, and the norm above which tokens are left alone.
        origins: the edit that each term came from, in the order of the terms.
        features: those that the edits name.
        sink_norm: tokens above this are sinks, whether the edits leave them alone or not.
        statistics: what strengths were measured in.
        approximations: what the terms do not reproduce of the features.
    """

    site: Site
    origins: tuple[Edit, ...]
    features: tuple[Feature, ...]
    sink_norm: float
    statistics: SiteStatistics
    approximations: tuple[str, ...]


def lower_splice(
    splice: Splice,
    place: Place,
    sae: LoadedSae | None,
    h: Tensor,
    field: str,
    *,
    drawn: int,
    seen: Mapping[str, float] | None,
) -> LoweredSplice:
    """Lower all edits of a splice.

    Args:
        splice: the recipe's splice.
        place: where the stream is edited.
        sae: the splice's SAE, if it names one.
        h: the float32 calibration stream at the site, shape [tokens, d].
        field: how the recipe calls the splice, for messages (`splices[0]`).
        drawn: how many of the tokens, the first ones, were drawn at random.
        seen: the largest activations in text that `h` is not of, by feature; None where the
            edits serve only to look for text, so that 1 can stand for a maximum of zero.

    Raises:
        HubspliceError: of the class of the first problem, one line per edit that has one.
    """
    norm = median_norm(h[:drawn])
    sink_norm = splice.sink_multiple * norm
    ordinary = h[torch.linalg.vector_norm(h, dim=-1) <= sink_norm]
    indices = sorted({index for edit in splice.edits for index in edit.feature_indices()})
    gates: dict[int, CalibratedGate] = {}
    if sae is not None and sae.config.architecture in _COMPETING:
        gates = calibrate_thresholds(sae, ordinary, indices)
    unmeasured = SpliceSources(sae, h.shape[1], SiteStatistics(norm, {}), gates)
    features = [unmeasured.feature(index) for index in indices]
    largest = max_activations(features, ordinary)
    for name, value in largest.items():
        largest[name] = max(value, seen.get(name, 0.0)) if seen is not None else value or 1.0
    statistics = SiteStatistics(norm, largest)
    sources = SpliceSources(sae, h.shape[1], statistics, gates)

    terms: list[Term] = []
    origins: list[Edit] = []
    problems: list[HubspliceError] = []
    for i, edit in enumerate(splice.edits):
        try:
            lowered = edit.lower(sources)
        except HubspliceError as error:
            problems.append(type(error)(f"{field}.edits[{i}]: {error}"))
            continue
        terms += lowered
        origins += [edit] * len(lowered)
    if problems:
        raise type(problems[0])("\n".join(map(str, problems)))
    return LoweredSplice(
        Site(
            place.layer,
            tuple(terms),
            sink_norm if splice.sinks == "skip" else math.inf,
            place.block,
        ),
        tuple(origins),
        tuple(features),
        sink_norm,
        statistics,
        tuple(f"{f.name}: {f.approximation}" for f in features if f.approximation),
    )
