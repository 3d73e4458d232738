"""How products are computed: settings of PyTorch that would silently cost digits, made explicit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_products() -> Iterator[None]:
    """Products of float32 in float32, and sums of bfloat16 products too, while the context lasts.

    TensorFloat-32 keeps 10 bits of a product's factors. What is measured against a float32
    reference must not come from that. The settings are the process's, and are put back.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    precision = torch.get_float32_matmul_precision()
    convolutions = cudnn.allow_tf32
    reductions = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = False
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32 = convolutions
        matmul.allow_bf16_reduced_precision_reduction = reductions


def arithmetic() -> tuple[str, ...]:
    """The settings in force, in words."""
    tf32 = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    reduced = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    return (
        f"float32 products: {torch.get_float32_matmul_precision()}",
        f"TensorFloat-32: {'on' if tf32 else 'off'}",
        f"bfloat16 sums: {'may be reduced' if reduced else 'in float32'}",
    )
