"""Whether a recipe would build, from configurations alone: no weight is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hubsplice.architectures.registry import architecture_of
from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.resolve import resolve_base
from hubsplice.construction import in_bias
from hubsplice.edits.base import Edit, ProbeSource, TensorSource
from hubsplice.edits.strength import Amount
from hubsplice.errors import (
    HubspliceError,
    RecipeError,
)
from hubsplice.features.base import Feature, Probe
from hubsplice.features.probe import load_probe
from hubsplice.features.sae_config import SaeConfig, read_sae_config
from hubsplice.features.sae_match import match_warnings, require_width, site_place
from hubsplice.features.sae_support import config_warnings, require_supported
from hubsplice.features.vector import load_subspace, load_vector
from hubsplice.intervention import Normalization, PiecewiseLinear
from hubsplice.place import Place
from hubsplice.recipe import Recipe, Splice


@dataclass(frozen=True)
class SaeSummary:
    """An SAE, as its configuration describes it.

    Attributes:
        origin: where it comes from.
        architecture: SAELens's name for its kind.
        d_in: the width of the stream that it reads.
        d_sae: how many features it has.
    """

    origin: str
    architecture: str
    d_in: int
    d_sae: int


@dataclass(frozen=True)
class SpliceSummary:
    """One splice that would build.

    Attributes:
        place: where the stream would be edited.
        sae: the SAE; None for a splice of vectors and probes alone.
        edits: how many edits there are of each kind.
        features: how many different SAE features they read or write.
    """

    place: Place
    sae: SaeSummary | None
    edits: Mapping[str, int]
    features: int


@dataclass(frozen=True)
class CheckReport:
    """A recipe that would build.

    Attributes:
        base_model: as the recipe names it.
        commit: the base's commit on the Hub; None for a local folder.
        model_type: the family, as the base's configuration names it.
        num_layers: the base's number of decoder layers.
        hidden_size: the width of its residual stream.
        splices: in the recipe's order.
        warnings: what builds, and may not be what was meant.
    """

    base_model: str
    commit: str | None
    model_type: str
    num_layers: int
    hidden_size: int
    splices: tuple[SpliceSummary, ...]
    warnings: tuple[str, ...]


def check(recipe: Recipe) -> CheckReport:
    """Check a recipe against the configurations of its base model and SAEs.

    Steering vectors and probes, which are small, are read and checked in full.

    Raises:
        HubspliceError: everything that would stop the build, one line per problem, as the class
            of the first one: `RecipeError` for what the recipe gets wrong, `UnsupportedError` for
            a model or SAE that can't be spliced, `CheckpointError` for missing or damaged files.
    """
    resolved = resolve_base(recipe.base_model, recipe.revision, weights=False)
    base = BaseConfig.open(resolved.folder)
    architecture = architecture_of(base.config)
    architecture.validate()
    hidden_size, num_layers = architecture.hidden_size, architecture.num_layers

    problems: list[HubspliceError] = []
    summaries: list[SpliceSummary] = []
    warnings: list[str] = []
    if base.previous_splice is not None:
        warnings.append(f"base_model: {recipe.base_model!r} is a spliced model itself")
    for i, splice in enumerate(recipe.splices):
        field = f"splices[{i}]"
        try:
            sae = _read_sae(splice, hidden_size)
            place = _place(splice, sae)
            architecture.require_place(place)
            in_bias(splice, place, architecture)
        except HubspliceError as error:
            problems.append(type(error)(f"{field}: {error}"))
            continue
        if place in (summary.place for summary in summaries):
            problems.append(RecipeError(f"{field}: another splice is after layer {place} already"))
        problems += _edit_problems(splice, sae, hidden_size, field)
        if sae is not None:
            names = (recipe.base_model, str(base.config.get("_name_or_path", recipe.base_model)))
            doubts = match_warnings(sae, dict.fromkeys(names), splice.place)
            warnings += [f"{field}: {doubt}" for doubt in (*doubts, *config_warnings(sae))]
        summaries.append(_summary(splice, place, sae))
    if problems:
        raise type(problems[0])("\n".join(map(str, problems)))
    return CheckReport(
        base_model=recipe.base_model,
        commit=resolved.commit,
        model_type=str(base.config["model_type"]),
        num_layers=num_layers,
        hidden_size=hidden_size,
        splices=tuple(summaries),
        warnings=tuple(warnings),
    )


def _read_sae(splice: Splice, hidden_size: int) -> SaeConfig | None:
    if splice.sae is None:
        return None
    config = read_sae_config(splice.sae)
    require_supported(config)
    require_width(config, hidden_size)
    return config


def _place(splice: Splice, sae: SaeConfig | None) -> Place:
    # The recipe's own validation asks for a layer where there is no SAE.
    place = splice.place if sae is None else site_place(sae, splice.place)
    assert place is not None
    return place


def _edit_problems(
    splice: Splice, sae: SaeConfig | None, hidden_size: int, field: str
) -> list[HubspliceError]:
    sources = _StandIns(sae, hidden_size)
    problems: list[HubspliceError] = []
    for i, edit in enumerate(splice.edits):
        try:
            edit.lower(sources)
        except HubspliceError as error:
            problems.append(type(error)(f"{field}.edits[{i}]: {error}"))
    return problems


def _summary(splice: Splice, place: Place, sae: SaeConfig | None) -> SpliceSummary:
    edits: tuple[Edit, ...] = splice.edits
    return SpliceSummary(
        place=place,
        sae=None if sae is None else SaeSummary(sae.origin, sae.architecture, sae.d_in, sae.d_sae),
        edits=dict(sorted(Counter(edit.kind for edit in edits).items())),
        features=len({index for edit in edits for index in edit.feature_indices()}),
    )


class _StandIns:
    """Sources whose features are in range and mean nothing: what lowering asks for is checked."""

    def __init__(self, sae: SaeConfig | None, hidden_size: int) -> None:
        self._sae = sae
        self._hidden_size = hidden_size

    def feature(self, index: int) -> Feature:
        if self._sae is None:
            raise RecipeError(f"feature {index} is of an SAE, and the splice has none")
        if not 0 <= index < self._sae.d_sae:
            raise RecipeError(
                f"feature: {index} is out of range; {self._sae.origin} has features 0 to "
                f"{self._sae.d_sae - 1}"
            )
        axis = torch.zeros(self._hidden_size)
        axis[0] = 1.0
        scalings = {kind.value: kind for kind in Normalization}
        return Feature(
            name=f"feature {index}",
            encoder=axis,
            bias=0.0,
            activation=PiecewiseLinear.relu(),
            threshold=0.0,
            decoder=axis,
            normalization=scalings.get(self._sae.normalize_activations, Normalization.NONE),
        )

    def vector(self, source: TensorSource) -> Tensor:
        return load_vector(source, self._hidden_size)

    def subspace(self, source: TensorSource) -> Tensor:
        return load_subspace(source, self._hidden_size)

    def probe(self, source: ProbeSource) -> Probe:
        return load_probe(source, self._hidden_size)

    def amount(self, amount: Amount, *, direction: Tensor, feature: Feature | None) -> float:  # noqa: ARG002
        return amount.value
