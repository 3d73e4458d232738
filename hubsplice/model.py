"""Models in memory: loading and placing them, hooking the residual stream, running batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hubsplice.errors import CheckpointError
from hubsplice.intervention import Intervention, Site

Model = Any
"""A transformers causal language model; its classes share no useful static type."""

_TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 32768}


@contextmanager
def loaded(folder: Path, dtype: torch.dtype) -> Iterator[Model]:
    """A model from a local folder, on the GPUs where there are any, and gone at the end.

    Raises:
        CheckpointError: transformers can't load it, or finds tensors missing or left over.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    placement = {"device_map": "auto"} if torch.cuda.is_available() else {}
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **placement,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder.name}: transformers cannot load it: {error}") from error
    wrong = {k: sorted(info[k]) for k in ("missing_keys", "unexpected_keys") if info.get(k)}
    if wrong:
        raise CheckpointError(f"{folder.name}: its tensors do not fit its class: {wrong}")
    try:
        yield model.eval()
    finally:
        del model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def decoder_layers(model: Model) -> nn.ModuleList:
    """The decoder layers, in order."""
    decoder = model.get_decoder()
    layers: nn.ModuleList = decoder.h if hasattr(decoder, "h") else decoder.layers
    return layers


def _replaced(output: Any, h: Tensor) -> Any:
    return (h, *output[1:]) if isinstance(output, tuple) else h


@contextmanager
def hooked(model: Model, intervention: Intervention) -> Iterator[None]:
    """Apply the reference hook of every site while the context lasts."""

    def edit(site: Site) -> Callable[[nn.Module, Any, Any], Any]:
        def run(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            h = output[0] if isinstance(output, tuple) else output
            return _replaced(output, site.edit(h))

        return run

    layers = decoder_layers(model)
    handles = [layers[s.layer].register_forward_hook(edit(s)) for s in intervention.sites]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Enough(Exception):  # noqa: N818
    """Everything that was asked for has been seen; the rest of the forward pass is not needed."""


def collect_outputs(
    model: Model, ids: Tensor, layers: list[int], progress: Callable[[int, int], None]
) -> dict[int, Tensor]:
    """The outputs of decoder layers, before any hook that was added later edits them.

    Args:
        model: the model; hooks that are on it already take effect in later layers only if they
            were registered after this call's own, which run first.
        ids: token ids, shape [sequences, length].
        layers: which layers; the forward pass stops after the last of them.
        progress: told how many sequences are done, and how many there are.

    Returns:
        By layer, shape [sequences, length, d], on the CPU, in the model's dtype.
    """
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    last = max(layers)
    modules = decoder_layers(model)

    def keep(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def run(_module: nn.Module, _inputs: Any, output: Any) -> None:
            h = output[0] if isinstance(output, tuple) else output
            found[layer].append(h.detach().to("cpu", copy=True))
            if layer == last:
                raise _Enough

        return run

    handles = [modules[i].register_forward_hook(keep(i), prepend=True) for i in layers]
    try:
        for batch in batches(model, ids, progress):
            with suppress(_Enough):
                model.base_model(batch, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def batches(model: Model, ids: Tensor, progress: Callable[[int, int], None]) -> Iterator[Tensor]:
    """Sequences in batches on the model's device, under inference mode."""
    device = model.device
    size = max(1, _TOKENS_PER_BATCH.get(device.type, 2048) // ids.shape[1])
    with torch.inference_mode():
        for start in range(0, len(ids), size):
            progress(start, len(ids))
            yield ids[start : start + size].to(device)
    progress(len(ids), len(ids))


def editing_sinks(intervention: Intervention) -> Intervention:
    """The same edits as a plain hook makes them, on attention sinks too."""
    return Intervention(tuple(replace(site, sink_norm=float("inf")) for site in intervention.sites))
