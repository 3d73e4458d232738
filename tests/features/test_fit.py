"""Whether an SAE fits a stream: measured, compared with what its files state, and put in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sae_lens import SAE
from torch import Tensor

from hubsplice.features import fit as fit_module
from hubsplice.features.amounts import Activity
from hubsplice.features.fit import measure_fit
from hubsplice.features.fit_record import SaeFit
from hubsplice.features.sae import LoadedSae, wrap_sae
from hubsplice.features.sae_registry import registry_entry

D = 16


def identity(scale: float = 1.0, *, d_sae: int = 2 * D, **metadata: Any) -> LoadedSae:
    """An SAE that rebuilds any stream: relu(h) − relu(−h); `scale` multiplies its encoder."""
    sae: Any = SAE.from_dict(
        {
            "architecture": "standard",
            "d_in": D,
            "d_sae": d_sae,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "metadata": metadata,
        }
    )
    both = torch.cat([torch.eye(D), -torch.eye(D)])
    values = {
        "W_enc": scale * both.T,
        "W_dec": both,
        "b_enc": torch.zeros(2 * D),
        "b_dec": torch.zeros(D),
    }
    for name, parameter in sae.named_parameters():
        if values[name].shape == parameter.shape:
            parameter.data = values[name]
    return wrap_sae(sae, "SAE test")


def stream(tokens: int = 1000, offset: float = 3.0) -> Tensor:
    return torch.randn(tokens, D, generator=torch.Generator().manual_seed(0)) + offset


def encoded(sae: LoadedSae, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the SAE is given to encode from now on."""
    seen: list[Tensor] = []
    encode = sae.module.encode

    def spy(h: Tensor) -> Tensor:
        seen.append(h)
        return encode(h)

    monkeypatch.setattr(sae.module, "encode", spy)
    return seen


def test_a_perfect_fit() -> None:
    activity = {"feature 3": Activity(5.0, 2.0, 100, 1000)}
    found = measure_fit(identity(), stream(), activity)
    assert found.variance_explained == pytest.approx(1.0, abs=1e-5)
    assert found.l0 == pytest.approx(D)
    assert found.silent == pytest.approx(0.0, abs=0.2)
    assert found.features == activity
    assert found.tokens == 1000
    assert not found.misfit
    assert found.doubts == ()


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.5, 10.0])
def test_variance_is_about_the_mean(scale: float) -> None:
    """The rebuilt stream is `scale` times the stream: both errors are known."""
    h = stream()
    found = measure_fit(identity(scale), h, {})
    centred = float((h - h.mean(dim=0)).square().sum())
    expected = 1 - (scale - 1) ** 2 * float(h.square().sum()) / centred
    assert found.variance_explained == pytest.approx(expected, rel=1e-4)
    assert found.misfit is (expected < 0)


def test_tokens_in_batches_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure_fit(identity(0.7), stream(), {})
    monkeypatch.setattr(fit_module, "_NUMBERS_AT_ONCE", 7 * 2 * D)
    batched = measure_fit(identity(0.7), stream(), {})
    assert batched.variance_explained == pytest.approx(whole.variance_explained)
    assert (batched.l0, batched.silent) == (whole.l0, whole.silent)


def test_a_wide_sae_never_makes_all_activations_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "_NUMBERS_AT_ONCE", 10 * 2 * D)
    sae = identity()
    seen = encoded(sae, monkeypatch)
    measure_fit(sae, stream(), {})
    assert max(map(len, seen)) == 10
    assert sum(map(len, seen)) == 1000


def test_of_many_tokens_some_are_taken_from_all_over(monkeypatch: pytest.MonkeyPatch) -> None:
    h = torch.arange(10_000.0)[:, None] + 0.5 * torch.ones(D)
    sae = identity()
    seen = encoded(sae, monkeypatch)
    found = measure_fit(sae, h, {})
    first = torch.cat(seen)[:, 0].floor()
    assert 2000 < found.tokens <= 4096
    assert first.tolist() == list(range(0, 10_000, 3))


@pytest.mark.parametrize(
    ("sae", "h", "reason"),
    [
        (identity(feature_indices=[1, 2]), stream(), "a part of an SAE"),
        (identity(sliced_from={"d_sae": 2048}), stream(), "a part of an SAE"),
        (identity(d_sae=2 * D - 1), stream(), f"31 features for {D} dimensions"),
        (identity(), stream(100), "100 tokens that are no sinks"),
        (identity(), torch.ones(200, D), "does not vary"),
    ],
)
def test_what_cannot_be_judged(sae: LoadedSae, h: Tensor, reason: str) -> None:
    found = measure_fit(sae, h, {})
    assert found.not_judged is not None
    assert reason in found.not_judged
    assert reason in str(found)
    assert found.variance_explained is None
    assert not found.misfit
    assert found.doubts == ()


def test_an_overflow_is_a_misfit() -> None:
    found = measure_fit(identity(1e30), stream() * 1e9, {})
    assert found.misfit
    assert found.variance_explained == -1e9


@pytest.mark.parametrize(
    ("fit", "doubts"),
    [
        (SaeFit({}, 4096, None, 0.78, 42.3, 0.03, None, 40.0), []),
        (SaeFit({}, 4096, None, 0.49, 42.3, 0.03), ["explains 49% of the variance"]),
        (SaeFit({}, 4096, None, 0.49, 42.3, 0.03, 0.6), []),
        (
            SaeFit({}, 4096, None, 0.69, 42.3, 0.03, 0.9),
            ["explains 69% of the variance of the stream, and 90% according to its files"],
        ),
        (SaeFit({}, 4096, None, -2.012, 42.3, 0.03), ["explains less than nothing (-2.01)"]),
        (SaeFit({}, 4096, None, -2.012, 42.3, 0.03, 0.1), ["explains less than nothing"]),
        (SaeFit({}, 4096, None, 0.6, 121.0, 0.03, None, 40.0), ["121 of its", "40 according"]),
        (SaeFit({}, 4096, None, 0.6, 13.0, 0.03, None, 40.0), ["13 of its features"]),
        (SaeFit({}, 4096, None, 0.6, 119.0, 0.03, None, 40.0), []),
    ],
)
def test_doubts_in_words(fit: SaeFit, doubts: list[str]) -> None:
    assert bool(fit.doubts) is bool(doubts)
    text = "\n".join(fit.doubts)
    assert all(doubt in text for doubt in doubts)
    assert text.count("may be of another model") == bool(doubts)
    assert fit.misfit is ((fit.variance_explained or 0) < 0)


def test_what_files_state_is_read() -> None:
    assert identity(l0=40.0, variance_explained=0.8).config.stated_l0 == 40.0
    assert identity(l0=40.0, variance_explained=0.8).config.stated_variance == 0.8
    for nonsense in (None, "40", True, -1, float("nan")):
        assert identity(l0=nonsense).config.stated_l0 is None
    entry = registry_entry("gpt2-small-res-jb", "blocks.0.hook_resid_pre")
    assert (entry.l0, entry.variance_explained) == (10.0, 0.999)
    entry = registry_entry("llama_scope_lxr_8x", "l19r_8x")
    assert entry.variance_explained is None
