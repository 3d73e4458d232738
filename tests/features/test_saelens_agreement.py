"""The reference hook against SAELens itself, with the error term kept.

SAELens's own forward pass runs with a hook on its activations; what comes out, less what went
in, is the edit. It runs in float64, so that the distance measured is ours alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hubsplice.compiling.sources import SpliceSources
from hubsplice.edits.recording import Recording
from hubsplice.edits.registry import EDITS
from hubsplice.features.activity import feature_activity
from hubsplice.features.base import Feature, SiteStatistics
from hubsplice.features.extract import extract_feature
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import LoadedSae, load_sae, wrap_sae
from hubsplice.features.topk import calibrate_thresholds
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site

# SAELens would rather wrap a whole model; its own forward pass still takes the flag.
pytestmark = pytest.mark.filterwarnings("ignore:Setting use_error_term:DeprecationWarning")

D, WIDTH, TOKENS = 24, 64, 300
FEATURES = tuple(range(0, WIDTH, 3))
TOPK = ("topk", "topk_rescaled", "abstopk", "abstopk_rescaled")
THRESHOLDED = ("standard", "gated", "jumprelu")
NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale", "expected_average_only_in")


def random_sae(kind: str, normalize: str = "none", apply_b_dec: bool = True) -> Any:
    """A SAELens SAE whose every parameter is random, and of a size that matters."""
    from sae_lens import SAE

    architecture, _, rescaled = kind.partition("_")
    config: dict[str, Any] = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": WIDTH,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": apply_b_dec,
        "normalize_activations": normalize,
        "metadata": {"hook_name": "blocks.3.hook_resid_post", "model_name": "tiny"},
    }
    if architecture in ("topk", "abstopk"):
        config |= {"k": 9, "rescale_acts_by_decoder_norm": bool(rescaled)}
    sae: Any = SAE.from_dict(config)
    generator = torch.Generator().manual_seed(0)
    sizes = {"W_enc": 0.4, "W_dec": 0.4, "threshold": 0.4}
    for name, parameter in sae.named_parameters():
        values = torch.randn(parameter.shape, generator=generator) * sizes.get(name, 0.3)
        parameter.data = values.abs() if name == "threshold" else values
    return sae


def stream() -> Tensor:
    return torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(1)) * 2.0


def saelens_change(sae: Any, h: Tensor, edit: Callable[[Tensor], Tensor]) -> Tensor:
    """What SAELens makes of h when `edit` replaces the chosen features' activations [..., n]."""
    sae = sae.to(torch.float64)

    def hook(activations: Tensor, hook: Any) -> Tensor:
        activations = activations.clone()
        activations[..., list(FEATURES)] = edit(activations[..., list(FEATURES)])
        return activations

    sae.use_error_term = True
    with torch.no_grad(), sae.hooks(fwd_hooks=[("hook_sae_acts_post", hook)]):
        changed: Tensor = sae(h.double())
    sae.use_error_term = False
    return changed - h.double()


def saelens_activations(sae: Any, h: Tensor) -> Tensor:
    with torch.no_grad():
        activations: Tensor = sae.to(torch.float64).encode(h.double())
    return activations[:, list(FEATURES)]


def hubsplice_change(features: list[Feature], h: Tensor, **fields: Any) -> Tensor:
    kind = EDITS.get(fields["kind"], "kind")
    by_index = dict(zip(FEATURES, features, strict=True))

    class Sources(SpliceSources):
        def feature(self, index: int) -> Feature:
            return by_index[index]

    sources = Sources(None, D, SiteStatistics(1.0, {}))
    terms = [
        term
        for index in FEATURES
        for term in kind.model_validate({"feature": index, **fields}).lower(Recording(sources))
    ]
    return Site(3, tuple(terms)).delta(h)


EDITS_OF_ACTIVATIONS: list[tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = [
    ({"kind": "ablate"}, torch.zeros_like),
    ({"kind": "scale", "factor": 4}, lambda f: 4 * f),
    ({"kind": "add", "strength": 2}, lambda f: f + 2 * (f != 0)),
    ({"kind": "clamp", "to": 3}, lambda f: torch.full_like(f, 3)),
    ({"kind": "clamp", "to": 3, "when": "active"}, lambda f: torch.where(f != 0, 3, f)),
    ({"kind": "cap", "at": 0.5}, lambda f: f.clamp(max=0.5)),
    ({"kind": "floor", "at": 0.5}, lambda f: f.clamp(min=0.5)),
]


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Within 1e-5 of the change, on the whole and for the worst token."""
    assert expected.norm() > 0
    error = (actual.double() - expected).norm(dim=-1)
    assert error.norm() <= 1e-5 * expected.norm()
    assert error.max() <= 1e-5 * expected.norm(dim=-1).max()


@pytest.mark.parametrize("apply_b_dec", [True, False], ids=["b_dec_in", "b_dec_out"])
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("kind", THRESHOLDED)
def test_edits_agree(kind: str, normalize: str, apply_b_dec: bool) -> None:
    sae, h = random_sae(kind, normalize, apply_b_dec), stream()
    loaded = wrap_sae(sae, "SAE test")
    features = [extract_feature(loaded, index) for index in FEATURES]
    activations = saelens_activations(sae, h)
    assert 0.02 < (activations > 0).double().mean() < 0.9
    for fields, edit in EDITS_OF_ACTIVATIONS:
        assert_close(hubsplice_change(features, h, **fields), saelens_change(sae, h, edit))


@pytest.mark.parametrize("apply_b_dec", [True, False], ids=["b_dec_in", "b_dec_out"])
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("kind", TOPK)
def test_topk_edits_agree_where_the_gates_agree(
    kind: str, normalize: str, apply_b_dec: bool
) -> None:
    sae, h = random_sae(kind, normalize, apply_b_dec), stream()
    loaded = wrap_sae(sae, "SAE test")
    gates = calibrate_thresholds(loaded, h, FEATURES)
    features = [extract_feature(loaded, index, gates[index]) for index in FEATURES]
    truth = saelens_activations(sae, h) != 0
    site = hubsplice_site(features)
    ours = site.activations(h) != 0
    for column, index in enumerate(FEATURES):
        agreed = (truth & ours)[:, column].sum().item()
        f1 = 2 * agreed / (truth[:, column].sum() + ours[:, column].sum()).item()
        assert gates[index].f1 == pytest.approx(f1, abs=1e-9)
        assert f"{f1:.4f}" in (features[column].approximation or "")
    # All chosen features must agree at a token, or the change there is another one.
    agree = (truth == ours).all(dim=1)
    assert agree.sum() >= 10
    for fields, edit in EDITS_OF_ACTIVATIONS:
        actual, expected = hubsplice_change(features, h, **fields), saelens_change(sae, h, edit)
        assert_close(actual[agree], expected[agree])


def hubsplice_site(features: list[Feature]) -> Site:
    from hubsplice.intervention.site import Term

    return Site(
        3,
        tuple(
            Term(f.name, f.encoder, f.bias, f.activation, f.decoder, f.normalization)
            for f in features
        ),
    )


def extract_all(loaded: LoadedSae, h: Tensor) -> list[Feature]:
    compete = loaded.config.architecture in ("topk", "abstopk")
    gates = calibrate_thresholds(loaded, h, FEATURES) if compete else {}
    return [extract_feature(loaded, i, gates.get(i)) for i in FEATURES]


def activations(loaded: LoadedSae, h: Tensor) -> Tensor:
    return hubsplice_site(extract_all(loaded, h)).activations(h)


def test_a_float32_saelens_agrees_as_well() -> None:
    """Without the switch to float64: within the rounding of both."""
    sae, h = random_sae("jumprelu"), stream()
    features = [extract_feature(wrap_sae(sae, "SAE test"), i) for i in FEATURES]

    def ablate(activations: Tensor, hook: Any) -> Tensor:
        activations[..., list(FEATURES)] = 0
        return activations

    sae.use_error_term = True
    with torch.no_grad(), sae.hooks(fwd_hooks=[("hook_sae_acts_post", ablate)]):
        expected = sae(h) - h
    assert_close(hubsplice_change(features, h, kind="ablate"), expected.double())


@pytest.mark.parametrize("kind", [*THRESHOLDED, *TOPK])
def test_saved_saes_load_as_they_were(kind: str, tmp_path: Path) -> None:
    sae, h = random_sae(kind), stream()
    sae.save_model(tmp_path)
    saved, made = load_sae(SaeSource(path=tmp_path)), wrap_sae(sae, "SAE test")
    assert saved.sha256 == made.sha256
    assert saved.config.hook is not None
    assert saved.config.hook.place == Place(3)
    assert (saved.config.d_in, saved.config.d_sae, saved.config.model_name) == (D, WIDTH, "tiny")
    assert torch.equal(activations(saved, h), activations(made, h))


@pytest.mark.parametrize("kind", [*THRESHOLDED, "topk_rescaled"])
def test_a_folded_decoder_norm_changes_the_units_alone(kind: str) -> None:
    """After SAELens folds decoder norms, ablation is the same and activations are f·‖d‖.

    Those of a rescaled TopK are in these units already.
    """
    h = stream()
    plain, folded = random_sae(kind), random_sae(kind)
    folded.fold_W_dec_norm()
    first, second = (
        hubsplice_change(extract_all(wrap_sae(sae, "SAE test"), h), h, kind="ablate")
        for sae in (plain, folded)
    )
    assert_close(first, second.double())
    norms = plain.W_dec.detach().norm(dim=1)[list(FEATURES)]
    torch.testing.assert_close(
        activations(wrap_sae(folded, "a"), h),
        activations(wrap_sae(plain, "b"), h) * (1 if kind == "topk_rescaled" else norms),
        rtol=1e-5,
        atol=1e-5,
    )


def test_batchtopk_as_saelens_saves_it(tmp_path: Path) -> None:
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    torch.manual_seed(0)
    training: Any = BatchTopKTrainingSAE(
        BatchTopKTrainingSAEConfig(d_in=D, d_sae=WIDTH, k=9, rescale_acts_by_decoder_norm=True)
    )
    for parameter in training.parameters():
        parameter.data = torch.randn_like(parameter) * 0.4
    training.topk_threshold = torch.tensor(1.1, dtype=training.topk_threshold.dtype)
    training.save_inference_model(tmp_path)
    loaded = load_sae(SaeSource(path=tmp_path))
    assert loaded.config.architecture == "jumprelu"
    h = stream()
    features = [extract_feature(loaded, i) for i in FEATURES]
    assert features[0].threshold == pytest.approx(1.1)
    for fields, edit in EDITS_OF_ACTIVATIONS:
        expected = saelens_change(loaded.module, h, edit)
        assert_close(hubsplice_change(features, h, **fields), expected)


def test_bfloat16_weights_are_read_as_float32(tmp_path: Path) -> None:
    sae = random_sae("jumprelu").to(torch.bfloat16)
    sae.save_model(tmp_path)
    loaded = load_sae(SaeSource(path=tmp_path))
    assert loaded.module.W_enc.dtype is torch.float32
    assert torch.equal(loaded.module.W_enc, sae.W_enc.float())


def test_activity_is_saelens_own() -> None:
    sae, h = random_sae("jumprelu"), stream()
    loaded = wrap_sae(sae, "SAE test")
    features = [extract_feature(loaded, i) for i in FEATURES]
    found = feature_activity(features, h)
    expected = saelens_activations(sae, h)
    active = (expected != 0).sum(dim=0)
    assert 0 < int(active.min()) < int(active.max()) < len(h)
    assert list(found) == [f"feature {i}" for i in FEATURES]
    activities = found.values()
    assert [a.active_tokens for a in activities] == active.tolist()
    assert {a.scanned_tokens for a in activities} == {len(h)}
    for values, truth in (
        ([a.maximum for a in activities], expected.amax(dim=0)),
        ([a.mean for a in activities], expected.sum(dim=0) / active),
    ):
        found_values = torch.tensor(values, dtype=torch.float64)
        torch.testing.assert_close(found_values, truth, rtol=1e-5, atol=1e-5)
    assert feature_activity([], h) == {}


def test_a_calibrated_threshold_has_the_best_f1() -> None:
    """No threshold between any two scores does better."""
    sae, h = random_sae("topk"), stream()
    loaded = wrap_sae(sae, "SAE test")
    gate = calibrate_thresholds(loaded, h, [3])[3]
    truth = saelens_activations(sae, h)[:, FEATURES.index(3)] != 0
    with torch.no_grad():
        p = ((h - sae.b_dec) @ sae.W_enc + sae.b_enc)[:, 3]

    def f1(threshold: float) -> float:
        opened = p > threshold
        return (2 * (truth & opened).sum() / (truth.sum() + opened.sum())).item()

    assert gate.f1 == pytest.approx(f1(gate.threshold), abs=1e-6)
    best = max(f1(t) for t in [0.0, *p[(p > 0) & (p < p.max())].tolist()])
    assert gate.f1 == pytest.approx(best, abs=1e-6)
    assert gate.tokens == TOKENS


def test_a_feature_that_never_wins_stays_shut() -> None:
    sae, h = random_sae("topk"), stream()
    sae.b_enc.data[3] = -100.0
    loaded = wrap_sae(sae, "SAE test")
    gate = calibrate_thresholds(loaded, h, [3])[3]
    assert gate.f1 is None
    feature = extract_feature(loaded, 3, gate)
    assert not hubsplice_site([feature]).activations(h).any()
    assert "never won" in (feature.approximation or "")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad: float, tmp_path: Path) -> None:
    from hubsplice.errors import CheckpointError

    random_sae("jumprelu").save_model(tmp_path)
    file = tmp_path / "sae_weights.safetensors"
    weights = load_file(file)
    weights["W_dec"][5, 2] = bad
    save_file(weights, file)
    with pytest.raises(CheckpointError, match="'W_dec' holds NaN or infinity"):
        load_sae(SaeSource(path=tmp_path))
