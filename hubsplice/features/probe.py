"""Linear probes from safetensors files."""

from __future__ import annotations

from hubsplice.errors import RecipeError
from hubsplice.features.base import Probe
from hubsplice.features.references import ProbeSource
from hubsplice.features.tensor_file import read_tensor


def load_probe(source: ProbeSource, hidden_size: int) -> Probe:
    """A probe whose weight has shape [hidden_size]; its bias is one number, or 0 for none.

    Raises:
        RecipeError: no such file or tensor, another shape, or a weight of zeros.
        CheckpointError: an unreadable file, or NaN or infinity in it.
    """
    _, weight = read_tensor(source.path, source.weight)
    # A torch.nn.Linear with one output saves its weight as [1, d].
    if tuple(weight.shape) not in ((hidden_size,), (1, hidden_size)):
        raise RecipeError(
            f"{source.path}: tensor {source.weight!r} has shape {list(weight.shape)}; "
            f"expected [{hidden_size}], the model's hidden size"
        )
    if not weight.any():
        raise RecipeError(f"{source.path}: tensor {source.weight!r} is all zeros and reads nothing")
    bias = 0.0
    if source.bias is not None:
        _, value = read_tensor(source.path, source.bias)
        if value.numel() != 1:
            raise RecipeError(
                f"{source.path}: tensor {source.bias!r} has shape {list(value.shape)}; "
                "expected a single number"
            )
        bias = value.item()
    return Probe(source.title, weight.reshape(hidden_size), bias)
