"""Whether two tensors are the same, bit by bit."""

from __future__ import annotations

import pytest
import torch

from hubsplice.checkpoint.tensors import same_bits

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (5, 7), (8, 16), (0, 4)])
def test_any_single_bit_tells(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape, dtype=dtype)
    assert same_bits(tensor, tensor.clone())
    for place in range(tensor.nbytes):
        other = tensor.clone()
        other.flatten().view(torch.uint8)[place] ^= 1
        assert not same_bits(tensor, other)
        assert not same_bits(other, tensor)


@pytest.mark.parametrize("offset", range(9))
def test_parts_of_a_storage_are_compared_from_any_byte_on(offset: int) -> None:
    content = torch.arange(64, dtype=torch.uint8)
    part, copy = content[offset : offset + 40], content[offset : offset + 40].clone()
    assert same_bits(part, copy)
    copy[39] += 1
    assert not same_bits(part, copy)


def test_signs_of_zero_nan_and_precisions_are_bits_too() -> None:
    nan, zero = torch.tensor([float("nan")]), torch.tensor([0.0])
    assert same_bits(nan, nan.clone())
    assert not same_bits(zero, -zero)
    assert not same_bits(zero, zero.half())
    assert not same_bits(zero, zero[None])
    rows = torch.arange(12.0).reshape(3, 4)
    assert same_bits(rows.T, rows.T.contiguous())
