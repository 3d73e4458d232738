"""Models whose layers and embeddings stay on the disk, and are read when they are entered.

transformers and accelerate say where each parameter lies in the safetensors files; nothing is
copied, but for experts that the files keep one by one. A module's parameters are read as they are
stored, and widened or rounded to the model's precision, as its forward pass begins, and dropped as
it ends. So a model takes the memory of its largest layer. Of the embeddings, only the rows are read
that are asked for. While a layer computes, the system reads the next one's part of the files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.errors import CheckpointError, blamed_on
from hubsplice.files.ahead import FilePart, joined
from hubsplice.files.unchanged import unchanged
from hubsplice.streams.layers import Model, decoder_layers
from hubsplice.streams.room import give_back
from hubsplice.streams.turns import wait_for

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@contextmanager
def on_disk(
    view: Path, dtype: torch.dtype, options: Mapping[str, Any]
) -> Iterator[tuple[Model, Mapping[str, Any]]]:
    """A model that is read from its files as it runs.

    Args:
        view: the model's folder, which must stay as it is.
        dtype: the precision that it is computed in.
        options: what `from_pretrained` is given beside the precision and where the weights go.

    Yields:
        The model, and what transformers says of its loading.
    """
    from accelerate.hooks import remove_hook_from_submodules
    from transformers import AutoModelForCausalLM

    # That parameters stay on the disk is what was asked for.
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plain = _plain_model(view, dtype)
    streamed = _streamed(plain)
    stored = _stored_dtype(view)
    with TemporaryDirectory(prefix="hubsplice-") as scratch:
        model, info = AutoModelForCausalLM.from_pretrained(
            view,
            # In the precision of the files nothing is read that stays on the disk.
            dtype=stored,
            device_map=dict(_places(plain, streamed, 0 if device.type == "cuda" else "cpu")),
            offload_folder=scratch,
            **options,
        )
        if info.get("missing_keys"):
            yield model, info  # Which is refused.
            return
        index = _index(model)
        remove_hook_from_submodules(model)
        if stored is not dtype:
            _cast(model, plain, dtype)
        parts = _parts(view)
        following: OnDisk | None = None
        for name in reversed(streamed):
            module = model.get_submodule(name)
            following = OnDisk(module, name, index, dtype, device, parts, following)
        with unchanged(view.glob("*.safetensors")):
            yield model, info


class OnDisk:
    """One module whose parameters are in memory only while it is entered or held."""

    def __init__(
        self,
        module: nn.Module,
        name: str,
        files: Mapping[str, Any],
        dtype: torch.dtype,
        device: torch.device,
        parts: Mapping[tuple[str, str], FilePart],
        following: OnDisk | None,
    ) -> None:
        """Have a module's parameters read from files when it is entered.

        Args:
            module: one that takes the stream, or tokens, and gives it back.
            name: its name in the model.
            files: by the names of the model's parameters, where they are; accelerate's index.
            dtype: the precision of the model.
            device: where it is computed.
            parts: by file and tensor, where it lies in the file.
            following: the module that is read next.
        """
        self._files, self._dtype, self._device = files, dtype, device
        self._owners = [
            (owner, own, f"{name}.{path}.{own}" if path else f"{name}.{own}", parameter.shape)
            for path, owner in module.named_modules()
            for own, parameter in owner.named_parameters(recurse=False)
        ]
        self._is_table = isinstance(module, nn.Embedding)
        self._following = following
        places = [
            (files[name]["safetensors_file"], files[name]["weight_name"])
            for *_, name, _ in self._owners
        ]
        self._parts = tuple(joined(parts[place] for place in places if place in parts))
        self._entered = 0
        self._drop()
        module.on_disk = self  # type: ignore[assignment]
        module.register_forward_pre_hook(self._before)
        # A pass may end within the module, with an exception.
        module.register_forward_hook(lambda *_: self.leave(), always_call=True)

    @staticmethod
    def of(module: nn.Module) -> OnDisk | None:
        """How a module is read, where it is on the disk."""
        return getattr(module, "on_disk", None)

    def enter(self, ids: Tensor | None = None) -> None:
        """Read the parameters, unless they are in memory.

        Args:
            ids: which rows will be asked for; None for all.
        """
        if self._entered == 0:
            if self._following is not None and ids is None:
                self._following.expect()
            for owner, own, name, shape in self._owners:
                stored = self.stored(name)
                if ids is None:
                    # Widened where it is used: half as much has to get there.
                    value = stored.to(self._device).to(self._dtype)
                else:
                    rows = torch.unique(ids).to(stored.device)
                    # What is not written takes no memory, and is never looked at.
                    value = torch.empty(shape, dtype=self._dtype, device=self._device)
                    value[rows.to(self._device)] = stored[rows].to(self._device).to(self._dtype)
                self._set(owner, own, value)
        self._entered += 1

    def leave(self) -> None:
        """Drop the parameters as soon as nobody is left who entered."""
        # Where reading has failed, nobody has.
        self._entered = max(0, self._entered - 1)
        if self._entered == 0:
            self._drop()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the parameters in memory while the context lasts."""
        self.enter()
        try:
            yield
        finally:
            self.leave()
            # What has gone through it in between, piece by piece, is free and not the system's.
            give_back()

    @property
    def read_bytes(self) -> int:
        """How many bytes each pass reads, as far as they lie in the checkpoint's own files."""
        return 0 if self._is_table else sum(part.end - part.start for part in self._parts)

    def expect(self) -> None:
        """Have the system read the parameters soon."""
        for part in self._parts:
            part.expect()

    def stored(self, name: str) -> Tensor:
        """A parameter as it is in its file, which is not read before somebody looks at it."""
        from safetensors import safe_open

        found = self._files[name]
        with (
            blamed_on(f"{name}: cannot be read any more"),
            safe_open(os.path.realpath(found["safetensors_file"]), framework="pt") as file,
        ):
            tensor: Tensor = file.get_tensor(found["weight_name"])
        return tensor

    def all_stored(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter, by its name in the model, as it is in its file."""
        for *_, name, _ in self._owners:
            yield name, self.stored(name)

    @property
    def only(self) -> str:
        """The name in the model of the weight of a module that has one."""
        return next(name for _, own, name, _ in self._owners if own == "weight")

    def _before(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._is_table and inputs:
            self.enter(inputs[0])
            return
        if self._entered == 0:
            wait_for(self)
        self.enter()

    def _drop(self) -> None:
        # It has shape, device and precision, and takes no memory.
        for owner, own, _, shape in self._owners:
            nothing = torch.zeros((), dtype=self._dtype, device=self._device)
            self._set(owner, own, nothing.expand(shape))

    @staticmethod
    def _set(owner: nn.Module, own: str, value: Tensor) -> None:
        owner.register_parameter(own, nn.Parameter(value, requires_grad=False))


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """Keep a module's parameters in memory while the context lasts, wherever they are."""
    found = OnDisk.of(module)
    with nullcontext() if found is None else found.held():
        yield


def is_in_memory(parameter: Tensor) -> bool:
    """Whether a parameter of a model is more than the place of one that stays on the disk."""
    return not parameter.is_meta and parameter.untyped_storage().nbytes() >= parameter.nbytes


def bytes_on_disk(model: Model) -> int:
    """How many bytes each pass of a model reads from the disk."""
    found = (OnDisk.of(module) for module in model.modules())
    return sum(on_disk.read_bytes for on_disk in found if on_disk is not None)


def _plain_model(view: Path, dtype: torch.dtype) -> Model:
    """The model without weights: its modules, and its buffers in their precision."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(view, local_files_only=True, trust_remote_code=False)
    with init_empty_weights(include_buffers=False):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)


def _streamed(model: Model) -> list[str]:
    """The names of the modules that stay on the disk, in the order of a pass."""
    names = {module: name for name, module in model.named_modules()}
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    return [names[module] for module in (first, *decoder_layers(model), last)]


def _parts(view: Path) -> Mapping[tuple[str, str], FilePart]:
    """By file, as accelerate names it, and tensor, where it lies."""
    return {
        (str(shard.path), tensor.name): FilePart(shard.path, tensor.start, tensor.end)
        for shard in BaseCheckpoint.open(view).shards
        for tensor in shard.tensors
    }


def _places(
    module: nn.Module, streamed: Sequence[str], device: str | int, name: str = ""
) -> Iterator[tuple[str, str | int]]:
    """Where each part of a model goes, with no name for what has parts in both places."""
    if name in streamed:
        yield name, "disk"
    elif not any(other.startswith(f"{name}.") or not name for other in streamed):
        yield name, device
    else:
        for child, part in module.named_children():
            yield from _places(part, streamed, device, f"{name}.{child}" if name else child)


def _stored_dtype(view: Path) -> torch.dtype:
    """A precision that holds every tensor of the files exactly."""
    tensors = BaseCheckpoint.open(view).tensors.values()
    found = {_DTYPES[tensor.dtype] for tensor in tensors if tensor.dtype in _DTYPES}
    return next(iter(found)) if len(found) == 1 else torch.float32


def _index(model: Model) -> Mapping[str, Any]:
    """Where each parameter lies that is on the disk, by its name in the model."""
    for module in model.modules():
        weights = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
        if weights is not None:
            index: Mapping[str, Any] = getattr(weights, "dataset", weights).index
            return index
    raise CheckpointError("accelerate keeps no parameter of the model on the disk")


def _cast(model: Model, plain: Model, dtype: torch.dtype) -> None:
    """Give a model the precision that it would have been loaded in."""
    for owner in model.modules():
        for own, parameter in owner.named_parameters(recurse=False):
            if parameter.is_floating_point() and not parameter.is_meta:
                owner.register_parameter(
                    own, nn.Parameter(parameter.to(dtype), requires_grad=False)
                )
    # Buffers are computed, and rounded as a model is made; some are read.
    for name, buffer in plain.named_buffers():
        path, _, own = name.rpartition(".")
        owner = model.get_submodule(path)
        if own in owner._non_persistent_buffers_set:
            owner._buffers[own] = buffer.to(owner._buffers[own].device)
        elif buffer.is_floating_point():
            owner._buffers[own] = owner._buffers[own].to(buffer.dtype)
    for config in (model.config, model.config.get_text_config()):
        config.dtype = dtype
