"""The YAML in front of a card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from huggingface_hub import ModelCardData

from hubsplice.card.escape import clean
from hubsplice.checkpoint.licenses import OTHER, HubLicense
from hubsplice.checkpoint.manifest import BaseTerms, Manifest
from hubsplice.evaluating.hub_results import model_index
from hubsplice.evaluating.results import Evaluation

_OF_FEATURES = "sparse-autoencoder"
_TAGS = ("hubsplice", _OF_FEATURES, "steering", "interpretability")
_LICENSE_STEMS = ("license", "licence", "copying")


def card_metadata(
    manifest: Manifest,
    license_id: str | None,
    *,
    evaluation: Evaluation | None = None,
    model_id: str = "",
) -> ModelCardData:
    """What the Hub indexes a model by.

    Args:
        manifest: of the built checkpoint. A local base is not named.
        license_id: the licence that the result is given under, as the Hub writes it, such as
            `apache-2.0`; None takes the base's, and where that is not known the card names none.
        evaluation: its figures, which become the card's `model-index`; None for none.
        model_id: what the figures are said to be of.
    """
    terms = manifest.base.terms if license_id is None else BaseTerms(license=license_id)
    files = license_files(manifest)
    known = HubLicense.of(terms.license, terms.license_name)
    if license_id is not None and license_id != OTHER:
        # The author's word stands as it is, and the Hub judges it before anything is sent.
        known = HubLicense((clean(license_id),))
    # The Hub wants to know where to read a licence that has no identifier of its own.
    other = known.name is not None
    # What the Hub shows it under: the base, or of an adapter the carrier.
    adapter = manifest.carrier is not None
    parent = manifest.base.repo_id if manifest.carrier is None else manifest.carrier.repo_id
    relation = "adapter" if adapter else "finetune"
    results = [] if evaluation is None else model_index(evaluation)
    return ModelCardData(
        # The Hub's client wants no name where there are no results.
        model_name=clean(model_id) if results else None,
        eval_results=results or None,
        base_model=_cleaned(parent),
        base_model_relation=relation if parent is not None else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        # A card may list several; the type knows of one.
        license=cast(str, list(known.ids)) if len(known.ids) > 1 else next(iter(known.ids), None),
        license_name=known.name,
        license_link=_cleaned(_link(manifest, terms, files)) if other else None,
        tags=[tag for tag in _TAGS if tag != _OF_FEATURES or reads_features(manifest)],
    )


def reads_features(manifest: Manifest) -> bool:
    """Whether an edit is of a SAE's feature, or has one in its condition."""
    return any(_names_feature(term.edit) for layer in manifest.edits for term in layer.terms)


def _names_feature(value: object) -> bool:
    if isinstance(value, Mapping):
        return value.get("feature") is not None or any(map(_names_feature, value.values()))
    return isinstance(value, list | tuple) and any(map(_names_feature, value))


def _cleaned(text: str | None) -> str | None:
    """Text of others in one line, without what can't be seen; None where nothing is left."""
    return None if text is None else clean(text) or None


def _link(manifest: Manifest, terms: BaseTerms, files: tuple[str, ...]) -> str | None:
    """Where to read a licence of its own: in the folder, or where the base's card says."""
    if files:
        return files[0]
    link = terms.license_link
    if link is None or "://" in link or manifest.base.repo_id is None:
        return link
    return f"https://huggingface.co/{manifest.base.repo_id}/blob/main/{link}"


def license_files(manifest: Manifest) -> tuple[str, ...]:
    """The licence files that came with the base, as names in the model's folder."""
    return tuple(name for name in sorted(manifest.files) if name.lower().startswith(_LICENSE_STEMS))
