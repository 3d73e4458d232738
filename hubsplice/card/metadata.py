"""The YAML in front of a card."""

from __future__ import annotations

from huggingface_hub import ModelCardData

from hubsplice.checkpoint.manifest import Manifest

_TAGS = ("hubsplice", "sparse-autoencoder", "steering", "interpretability")
_LICENSE_STEMS = ("license", "licence", "copying")


def card_metadata(manifest: Manifest, license_id: str | None) -> ModelCardData:
    """What the Hub indexes a model by.

    Args:
        manifest: of the built checkpoint. A local base is not named.
        license_id: the base's licence as the Hub writes it, such as `apache-2.0`; None where it
            is not known, and then the card names none.
    """
    files = license_files(manifest)
    # The Hub wants to know where to read a licence that has no identifier of its own.
    own_text = license_id == "other" and files
    return ModelCardData(
        base_model=manifest.base.repo_id,
        base_model_relation="finetune" if manifest.base.repo_id is not None else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        license=license_id,
        license_name="base-model-license" if own_text else None,
        license_link=files[0] if own_text else None,
        tags=list(_TAGS),
    )


def license_files(manifest: Manifest) -> tuple[str, ...]:
    """The licence files that came with the base, as names in the model's folder."""
    return tuple(name for name in sorted(manifest.files) if name.lower().startswith(_LICENSE_STEMS))
