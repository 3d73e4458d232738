"""Which SAEs can be spliced, and why the others cannot."""

from __future__ import annotations

from hubsplice.errors import UnsupportedError, unknown_name
from hubsplice.features.centring import is_inexact
from hubsplice.features.refusals import TEMPORAL, TRANSCODER
from hubsplice.features.sae_config import SaeConfig

SUPPORTED_ARCHITECTURES = ("abstopk", "gated", "jumprelu", "standard", "topk")

_UNSAVED = (
    "the folder holds a training checkpoint; SAELens's save_inference_model turns it into a "
    "jumprelu SAE, which works"
)
_REFUSED_ARCHITECTURES = {
    "transcoder": TRANSCODER,
    "skip_transcoder": TRANSCODER,
    "jumprelu_transcoder": TRANSCODER,
    "jumprelu_skip_transcoder": TRANSCODER,
    "crosscoder": "a crosscoder reads several layers at once, and an inserted layer sees one",
    "temporal": TEMPORAL,
    "matching_pursuit": "its features are picked one after another, each from what the ones "
    "before it left, and are no function of one read-out each",
    "batchtopk": _UNSAVED,
    "matryoshka_batchtopk": _UNSAVED,
}


def require_supported(config: SaeConfig) -> None:
    """Check an SAE's kind and place.

    Raises:
        UnsupportedError: with the reason.
    """
    architecture = config.architecture
    if architecture in _REFUSED_ARCHITECTURES:
        raise UnsupportedError(
            f"{config.origin}: architecture {architecture!r} cannot be spliced: "
            f"{_REFUSED_ARCHITECTURES[architecture]}"
        )
    if architecture not in SUPPORTED_ARCHITECTURES:
        raise UnsupportedError(
            unknown_name(f"{config.origin}: architecture", architecture, SUPPORTED_ARCHITECTURES)
        )
    if config.hook is not None:
        config.hook.require_supported()
    if config.reshape_activations != "none":
        raise UnsupportedError(
            f"{config.origin}: it reshapes its input ({config.reshape_activations}), as SAEs of "
            "attention heads do, inside a layer; SAEs of the residual stream work"
        )
    if config.normalize_activations == "covariance_whitening":
        raise UnsupportedError(
            f"{config.origin}: normalize_activations is covariance_whitening, which SAELens folds "
            "into the weights when training ends; these weights are not folded, and what they "
            "were whitened with is not saved with them"
        )
    known = ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm")
    if config.normalize_activations not in known:
        raise UnsupportedError(
            unknown_name(
                f"{config.origin}: normalize_activations", config.normalize_activations, known
            )
        )


def config_warnings(config: SaeConfig) -> tuple[str, ...]:
    """What a user should know about an SAE that is used all the same."""
    found = []
    if config.normalize_activations == "expected_average_only_in":
        found.append(
            f"{config.origin}: normalize_activations is expected_average_only_in, and no factor "
            "is folded into the weights. SAELens then scales nothing, and neither does hubsplice. "
            "If the SAE was trained on scaled inputs, its activations are off by that scale."
        )
    if is_inexact(config):
        found.append(
            f"{config.origin}: trained on a model whose writing weights were centred, and its "
            "input is rescaled by its norm. The stock model's stream has a mean, which adds to "
            "that norm, so the activations may differ."
        )
    if config.competes:
        found.append(
            f"{config.origin}: the features of a {config.architecture} SAE compete at each token, "
            "and one layer can't compute that. Each feature gets a threshold from calibration "
            "instead, and the report gives its F1."
        )
    return tuple(found)
