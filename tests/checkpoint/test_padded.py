"""Padding that is never held, against the dense tensor."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from hubsplice.checkpoint.padded import Padded


@pytest.mark.parametrize(("rows", "columns"), [(5, 3), (2, 7), (5, 7), (4, 0)])
def test_rows_are_those_of_the_dense_tensor(rows: int, columns: int) -> None:
    corner = torch.arange(1.0, 1 + rows * columns).reshape(rows, columns)
    dense = functional.pad(corner, (0, 7 - columns, 0, 5 - rows))
    padded = Padded(corner, (5, 7))
    for start in range(rows):
        for stop in range(start, rows + 1):
            assert torch.equal(padded.rows(start, stop), dense[start:stop])
    vector = Padded(corner.reshape(-1), (40,))
    assert torch.equal(vector.rows(0, 40), corner.reshape(-1))


@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (1,), (1, 1, 1)])
def test_the_corner_must_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"does not fit \[3, 3\]"):
        Padded(torch.ones(shape), (3, 3))
