"""Which features of an SAE the edits of a checkpoint are nearest to.

The vectors are those of the intervention; how near the weights come to them, inspection says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from pydantic import Field
from torch import Tensor

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.compiling.base_sae import as_trained
from hubsplice.explore.sae_names import find_source
from hubsplice.families.architecture import Architecture
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import LoadedSae, load_sae
from hubsplice.features.sae_match import require_width
from hubsplice.intervention.intervention import Intervention
from hubsplice.verifying.result import Record


class NearFeature(Record):
    """The feature that a vector is nearest to."""

    feature: int
    cosine: float = Field(description="Of the vector and the feature's; its sign does not count.")


class NearestFeatures(Record):
    """The features that an edit's vectors are nearest to."""

    place: str = Field(description="After which layer of the base the stream is edited.")
    label: str = Field(description="The edit.")
    declared: int | None = Field(description="The feature in the manifest; null for a vector.")
    reads: NearFeature | None = Field(
        description="Of its encoder and the SAE's; null for an edit that reads nothing."
    )
    writes: NearFeature = Field(description="Of its direction and the SAE's decoder.")

    @property
    def as_declared(self) -> bool | None:
        """Whether what it reads is the declared feature; None where it reads or declares none."""
        if self.declared is None or self.reads is None:
            return None
        return self.reads.feature == self.declared


def nearest_features(
    manifest: Manifest, intervention: Intervention, architecture: Architecture, sae: SaeSource
) -> tuple[NearestFeatures, ...]:
    """The nearest features of every edit at the places where the SAE can be.

    Raises:
        RecipeError: there is no such SAE, or it reads streams of another width.
        HubspliceError: it can't be loaded.
    """
    found = as_trained(find_source(sae), architecture)
    require_width(found.config, architecture.hidden_size)
    return tuple(_found(manifest, intervention, load_sae(found)))


def _found(
    manifest: Manifest, intervention: Intervention, sae: LoadedSae
) -> Iterator[NearestFeatures]:
    declared: Mapping[tuple[str, str], int | None] = {
        (str(edits.place), term.label): term.feature
        for edits in manifest.edits
        for term in edits.terms
    }
    encoders = sae.module.W_enc.detach().float().T
    directions = sae.module.W_dec.detach().float()
    for site in intervention.sites:
        for term in site.terms:
            yield NearestFeatures(
                place=str(site.place),
                label=term.label,
                declared=declared.get((str(site.place), term.label)),
                reads=_nearest(term.encoder, encoders) if term.encoder.any() else None,
                writes=_nearest(term.direction, directions),
            )


def _nearest(vector: Tensor, features: Tensor) -> NearFeature:
    """The feature, of rows of shape [n, d], with the largest cosine; zero vectors have none."""
    lengths = features.norm(dim=1) * vector.float().norm()
    cosines = (features @ vector.float()) / lengths.clamp_min(torch.finfo(torch.float32).tiny)
    feature = int(cosines.abs().argmax())
    return NearFeature(feature=feature, cosine=float(cosines[feature]))
