"""Whether an edit belongs on a model: by the number of its layers and the width of its stream."""

from __future__ import annotations

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.errors import RecipeError
from hubsplice.intervention.intervention import Intervention
from hubsplice.streams.model import Model, decoder_layers


def require_base(model: Model, manifest: Manifest) -> None:
    """Raise `RecipeError` unless the model has as many layers as the base of a checkpoint."""
    found, spliced = len(decoder_layers(model)), len(manifest.layer_map)
    expected = spliced - len(manifest.layers)
    if found == expected:
        return
    if found == spliced:
        raise RecipeError(
            f"model: it has {found} layers, as the spliced checkpoint has, which makes the edit by "
            f"itself; load the base, {manifest.base.name}"
        )
    raise RecipeError(
        f"model: it has {found} layers, and the base of the checkpoint, {manifest.base.name}, "
        f"has {expected}"
    )


def require_fit(model: Model, intervention: Intervention) -> None:
    """Raise `RecipeError` for a site that the model lacks, or a vector of another width."""
    layers = len(decoder_layers(model))
    width = model.config.get_text_config().hidden_size
    for site in intervention.sites:
        if site.place.layer >= layers:
            raise RecipeError(
                f"model: it has {layers} layers, and the edit is after layer {site.place}"
            )
        for term in site.terms:
            if len(term.encoder) != width:
                raise RecipeError(
                    f"model: its hidden size is {width}, and {term.label!r} is for "
                    f"{len(term.encoder)}"
                )
