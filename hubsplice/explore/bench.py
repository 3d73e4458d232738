"""A base in memory with the SAEs that read it: what a search looks through."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from hubsplice.checkpoint.base import BaseCheckpoint, BaseConfig
from hubsplice.checkpoint.resolve import fetch_weights, resolve_base
from hubsplice.checkpoint.stock import require_stock
from hubsplice.compiling.base_sae import as_trained
from hubsplice.errors import HubspliceError, RecipeError
from hubsplice.explore.sae_names import PlacedSae, find_source, placed, sae_source
from hubsplice.families.architecture import architecture_of
from hubsplice.features.sae_match import match_warnings
from hubsplice.intervention.place import Place
from hubsplice.streams.model import Model, loaded
from hubsplice.terminal import Progress
from hubsplice.text.tokenizer import load_tokenizer

_MODEL = "--model"
_NAMED = "--sae names the model"


@dataclass(frozen=True, eq=False)
class Bench:
    """What a search works with.

    Attributes:
        base_model: as a recipe names the base.
        revision: its commit; None for a local folder.
        model: the base in float32.
        tokenizer: its tokenizer.
        saes: the SAEs, in the order in which they were named.
        warnings: doubts about them.
    """

    base_model: str
    revision: str | None
    model: Model
    tokenizer: PreTrainedTokenizerBase
    saes: tuple[PlacedSae, ...]
    warnings: tuple[str, ...]


@contextmanager
def opened(
    base_model: str | None,
    revision: str | None,
    saes: Sequence[str],
    after_layer: int | None,
    progress: Progress,
    *,
    feature: int | None = None,
) -> Iterator[Bench]:
    """Load a base and SAEs, and let go of them at the end.

    Args:
        base_model: a folder or a Hub id; None for the model that the first SAE names.
        revision: of a Hub repository.
        saes: as `sae_source` takes them.
        after_layer: where the SAE reads, if not where it was trained.
        progress: told what is loaded.
        feature: what will be asked of the first SAE, which must have it.

    Raises:
        HubspliceError: a base or an SAE is missing, damaged, or can't be spliced.
    """
    if not saes:
        raise RecipeError("--sae: missing; name at least one SAE")
    if after_layer is not None and len(saes) > 1:
        raise RecipeError("--after-layer: it is of one SAE, and there are several")
    found = [find_source(sae_source(name)) for name in saes]
    if feature is not None:
        found[0].config.require_feature(feature)
    named = _named(base_model, found[0].config.model_name)
    field = _MODEL if base_model is not None else _NAMED
    with _by_the_sae(base_model):
        resolved = resolve_base(named, revision, weights=False, field=field)
    config = BaseConfig.open(resolved.folder)
    with _by_its_option():
        architecture = architecture_of(config.config)
        architecture.validate()
    require_stock(config)
    place = None if after_layer is None else Place(after_layer)
    if place is not None:
        architecture.require_place(place)
    progress("loading the SAEs", 0, len(found))
    ready = []
    for number, one in enumerate(found, start=1):
        ready.append(placed(as_trained(one, architecture), place, architecture.hidden_size))
        architecture.require_place(ready[-1].place)
        progress("loading the SAEs", number, len(found))
    # The weights last: they take the longest to fetch.
    with _by_the_sae(base_model):
        fetch_weights(resolved, field)
    BaseCheckpoint.of(config)
    # A relative folder would be looked for beside the recipe that is written.
    name = resolved.repo_id or str(resolved.folder.absolute())
    names = (name, str(config.config.get("_name_or_path", name)))
    warnings = [
        doubt
        for one in ready
        for doubt in (*match_warnings(one.sae.config, names, place), *one.sae.warnings)
    ]
    tokenizer = load_tokenizer(resolved.folder)
    progress("loading the model", 0, 1)
    with loaded(resolved.folder, torch.float32) as model:
        progress("loading the model", 1, 1)
        yield Bench(
            name, resolved.commit, model, tokenizer, tuple(ready), tuple(dict.fromkeys(warnings))
        )


@contextmanager
def _by_its_option() -> Iterator[None]:
    """Problems of a recipe's `base_model` as those of the option that names it here."""
    try:
        yield
    except HubspliceError as error:
        said = re.sub(r"(?m)^base_model\b", _MODEL, str(error))
        raise type(error)(said) from None


@contextmanager
def _by_the_sae(base_model: str | None) -> Iterator[None]:
    """Say how another base is named, where a problem is of the one that the SAE names."""
    try:
        yield
    except HubspliceError as error:
        if base_model is not None:
            raise
        raise type(error)(f"{error}; name a local copy, or another model, with --model") from None


def _named(base_model: str | None, trained_on: str | None) -> str:
    if base_model is not None:
        return base_model
    if trained_on is None or "/" not in trained_on:
        said = "does not say" if trained_on is None else f"says {trained_on!r}, which is no Hub id"
        raise RecipeError(f"--model: missing, and the SAE {said}; name the base model")
    return trained_on
