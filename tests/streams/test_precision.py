"""Settings that would silently cost digits."""

from __future__ import annotations

import pytest
import torch

from hubsplice.streams.precision import arithmetic, exact_products

EXACT = (
    "float32 products: highest",
    "TensorFloat-32: off",
    "bfloat16 sums: in float32",
)


def test_the_settings_are_explicit_and_put_back() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    try:
        outside = arithmetic()
        assert outside[:2] == ("float32 products: medium", "TensorFloat-32: on")
        with exact_products():
            assert arithmetic() == EXACT
        assert arithmetic() == outside
        with pytest.raises(ValueError, match="broken"), exact_products():
            raise ValueError("broken")
        assert arithmetic() == outside
    finally:
        torch.set_float32_matmul_precision(before)
