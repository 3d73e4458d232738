"""A carrier is its base, bit for bit, in every family that can be one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hubsplice.checkpoint.companions import CARD
from hubsplice.errors import UnsupportedError
from tests.adapters.conftest import carry
from tests.families.logits import logits_of, same_bits
from tests.families.variants import GATED, VARIANTS, WINDOWED, Variant, save_tiny

CARRYING = [
    Variant("llama", GATED),
    Variant("mistral", GATED | {"sliding_window": None, "head_dim": 16}),
    Variant("qwen2", GATED),
    Variant("phi3", GATED),
    Variant("qwen3", GATED | {"intermediate_size": 192, "head_dim": 16}),
    *(v for v in VARIANTS if v.family in ("granite", "smollm3", "seed_oss")),
    Variant("gemma2", GATED | WINDOWED),
    Variant("gemma3", GATED | WINDOWED | {"sliding_window_pattern": 2}),
    Variant("olmo2", GATED),
    Variant("olmo3", GATED | {"sliding_window": 8}),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", CARRYING, ids=str)
def test_a_carrier_is_its_base(variant: Variant, dtype: str, tmp_path: Path) -> None:
    precision = getattr(torch, dtype)
    base = save_tiny(variant, tmp_path / "base", precision)
    folder = carry(base, tmp_path / "carrier", 1, 3)
    assert same_bits(logits_of(folder, precision), logits_of(base, precision))
    assert "a carrier" in (folder / CARD).read_text()


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt2", "starcoder2"])
def test_other_families_are_refused_with_their_reason(family: str, tmp_path: Path) -> None:
    base = save_tiny(Variant(family), tmp_path / "base", torch.float32)
    with pytest.raises(UnsupportedError, match=r"can't be a carrier: .*build a merged checkpoint"):
        carry(base, tmp_path / "carrier", 1)
    assert not (tmp_path / "carrier").exists()
