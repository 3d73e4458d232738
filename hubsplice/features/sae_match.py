"""Whether an SAE belongs to a base model and a layer."""

from __future__ import annotations

from collections.abc import Iterable

from hubsplice.errors import RecipeError
from hubsplice.features.sae_config import SaeConfig
from hubsplice.intervention.place import Place

_OTHER_NAMES = {"gpt2-small": "gpt2"}


def require_width(config: SaeConfig, hidden_size: int) -> None:
    """Raise `RecipeError` unless the SAE reads streams of the base's width."""
    if config.d_in != hidden_size:
        trained = f" (trained on {config.model_name})" if config.model_name else ""
        raise RecipeError(
            f"{config.origin}{trained}: d_in is {config.d_in}; expected {hidden_size}, the base "
            "model's hidden size"
        )


def site_place(config: SaeConfig, place: Place | None) -> Place:
    """Where to splice: where the recipe says, or else where the SAE was trained.

    Raises:
        RecipeError: neither says.
    """
    if place is not None:
        return place
    if config.hook is None or config.hook.place is None:
        said = "does not say which layer it was trained on"
        if config.hook is not None:
            said = (
                f"was trained on {config.hook.name!r}, a name that hubsplice does not know; say "
                "which layer's output that is, if it is one"
            )
        raise RecipeError(f"after_layer: missing, and {config.origin} {said}")
    return config.hook.place


def match_warnings(
    config: SaeConfig, base_names: Iterable[str], place: Place | None
) -> tuple[str, ...]:
    """Doubts about the pairing of an SAE with a base model, to be shown and recorded.

    Args:
        config: the SAE's configuration.
        base_names: all names that the base goes by, such as its Hub id and its folder's name.
        place: where the recipe splices, or None where it leaves that to the SAE.
    """
    found = []
    names = list(base_names)
    if config.model_name is not None and _plain(config.model_name) not in map(_plain, names):
        found.append(
            f"{config.origin}: trained on {config.model_name!r}, while the base model is "
            f"{' or '.join(map(repr, names))}; its features may mean nothing there"
        )
    if place is not None and config.hook is not None and config.hook.place is None:
        found.append(
            f"{config.origin}: trained on {config.hook.name!r}, a name that hubsplice does not "
            f"know; {place.field}: {place.layer} is taken for it, as the recipe says"
        )
    trained = None if config.hook is None else config.hook.place
    if place is not None and trained is not None and place != trained:
        found.append(
            f"{place.field}: {place.layer}, while {config.origin} was trained on the stream after "
            f"layer {trained}"
        )
    return tuple(found)


def _plain(name: str) -> str:
    short = name.rstrip("/").rsplit("/", 1)[-1].lower().replace("_", "-")
    return _OTHER_NAMES.get(short, short)
