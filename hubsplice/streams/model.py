"""Models in memory: loading and placing them, hooking the residual stream, running batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hubsplice.checkpoint.views import model_view
from hubsplice.errors import CheckpointError, blamed_on
from hubsplice.intervention.intervention import NO_EDIT, Intervention
from hubsplice.intervention.place import Block, Place
from hubsplice.intervention.site import Site
from hubsplice.streams.in_step import InStep
from hubsplice.streams.kept import Kept
from hubsplice.streams.layers import Model as Model
from hubsplice.streams.layers import StopEarly as StopEarly
from hubsplice.streams.layers import decoder_layers as decoder_layers
from hubsplice.streams.on_disk import on_disk
from hubsplice.streams.room import fits_whole, give_back
from hubsplice.streams.turns import own_hook

_TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 32768}


@contextmanager
def loaded(folder: Path, dtype: torch.dtype, *, keep: bool = False) -> Iterator[Model]:
    """A model from a local folder, on the GPUs where there are any, and gone at the end.

    One that memory does not hold is read layer by layer as it runs; see `on_disk`.

    Args:
        folder: the model's.
        dtype: the precision that it is computed in.
        keep: whether streams that nothing edits are kept from one run to the next.

    Raises:
        CheckpointError: transformers can't load it, finds tensors missing or left over, or what
            the folder asks for is refused.
    """
    from transformers import GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    options = {
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "output_loading_info": True,
        # Nothing is taken over from the folder, neither from the file nor from config.json.
        "generation_config": GenerationConfig(),
    }
    with model_view(folder) as view, ExitStack() as stack:
        place = _whole if fits_whole(folder, dtype) else on_disk
        with blamed_on(f"{folder.name}: transformers cannot load it"):
            model, info = stack.enter_context(place(view, dtype, options))
        wrong = {k: sorted(info[k]) for k in ("missing_keys", "unexpected_keys") if info.get(k)}
        if wrong:
            raise CheckpointError(f"{folder.name}: its tensors do not fit its class: {wrong}")
        if keep:
            model.kept = Kept.of(folder, dtype)
        try:
            yield model.eval()
        finally:
            del model
            give_back()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


@contextmanager
def _whole(
    view: Path, dtype: torch.dtype, options: Mapping[str, Any]
) -> Iterator[tuple[Model, Mapping[str, Any]]]:
    from transformers import AutoModelForCausalLM

    placement = {"device_map": "auto"} if torch.cuda.is_available() else {}
    yield AutoModelForCausalLM.from_pretrained(view, dtype=dtype, **options, **placement)


def _replaced(output: Any, h: Tensor) -> Any:
    return (h, *output[1:]) if isinstance(output, tuple) else h


def _reader(layer: nn.Module) -> nn.Module:
    """What reads the stream after a layer's attention: the MLP, or the norm in front of it."""
    if not any(hasattr(layer, name) for name in ("input_layernorm", "ln_1")):
        return layer.get_submodule("mlp")  # Norms stand behind the blocks alone.
    names = ("pre_feedforward_layernorm", "ln_2", "post_attention_layernorm")
    return layer.get_submodule(next(name for name in names if hasattr(layer, name)))


def _is_entry(model: Model, place: Place) -> bool:
    """Whether a layer is entered at a place: it is after one layer, or none, and before another."""
    return place.block is Block.MLP and place.layer + 1 < len(decoder_layers(model))


def _at(
    model: Model,
    place: Place,
    see: Callable[[Tensor], Tensor | None],
    *,
    first: bool = False,
    entering: bool = False,
) -> RemovableHandle:
    """Show the stream at a place to `see`, and go on with what it returns, if that is not None.

    Args:
        model: the model.
        place: in its layers.
        see: gets the stream, shape [..., d].
        first: whether it comes before what sees the place already.
        entering: whether a place after a layer is seen as the next one is entered. The layer itself
            need not be passed then, and whoever else looks at its output sees no edit.
    """
    layers = decoder_layers(model)
    see = own_hook(see)
    if place.layer < 0 or (entering and _is_entry(model, place)):

        def before(_module: nn.Module, args: Any, kwargs: Any) -> Any:
            changed = see(args[0] if args else kwargs["hidden_states"])
            if changed is None:
                return None
            if args:
                return (changed, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": changed}

        entered = layers[place.layer + 1]
        return entered.register_forward_pre_hook(before, prepend=first, with_kwargs=True)

    layer = layers[place.layer]
    if place.block is Block.MLP:

        def after(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            changed = see(output[0] if isinstance(output, tuple) else output)
            return None if changed is None else _replaced(output, changed)

        return layer.register_forward_hook(after, prepend=first)

    def between(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        changed = see(inputs[0])
        if changed is not None:
            # The sum of stream and attention, which the block has just made: the MLP reads it and
            # is added to it, and nothing else holds it. So written, both see the edit, exactly.
            inputs[0].copy_(changed)

    return _reader(layer).register_forward_pre_hook(between, prepend=first)


@contextmanager
def removed_afterwards(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Remove the hooks when the context ends."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def hooked(model: Model, intervention: Intervention, *, entering: bool = False) -> Iterator[None]:
    """Apply the reference hook of every site while the context lasts.

    Between attention and MLP, it writes into the stream in place, as only inference allows.

    Args:
        model: the model.
        intervention: the edits.
        entering: whether an edit after a layer is made as the next one is entered, for streams that
            begin there. Without that, no work is kept meanwhile: the model's passes aren't bare.
    """
    handles = [_at(model, site.place, site.edit, entering=entering) for site in intervention.sites]
    with removed_afterwards(handles), nullcontext() if entering else _keeping_nothing(model):
        yield


@contextmanager
def _keeping_nothing(model: Model) -> Iterator[None]:
    kept = getattr(model, "kept", None)
    if kept is None:
        yield
        return
    model.kept = None
    try:
        yield
    finally:
        model.kept = kept


@contextmanager
def hooked_rows(model: Model, interventions: Sequence[Intervention | None]) -> Iterator[None]:
    """Apply an intervention of its own to each sequence of a batch while the context lasts.

    Args:
        model: the model.
        interventions: one for each row of the batches that will run; None leaves a row alone.
    """
    rows: dict[Intervention, list[int]] = {}
    for row, intervention in enumerate(interventions):
        if intervention is not None:
            rows.setdefault(intervention, []).append(row)
    at: dict[Place, list[tuple[list[int], Site]]] = {}
    for intervention, own in rows.items():
        for site in intervention.sites:
            at.setdefault(site.place, []).append((own, site))

    def edit(place: Place) -> Callable[[Tensor], Tensor]:
        def edited(h: Tensor) -> Tensor:
            changed = h.clone()
            for own, site in at[place]:
                changed[own] = site.edit(h[own])
            return changed

        return edited

    with removed_afterwards([_at(model, place, edit(place)) for place in sorted(at)]):
        yield


@contextmanager
def seeing(
    model: Model,
    places: Sequence[Place],
    see: Callable[[Place, Tensor], None],
    *,
    entering: bool = False,
) -> Iterator[None]:
    """Show the stream at some places, before the hooks on the model edit it there.

    Args:
        model: the model, with hooks or without.
        places: where to look.
        see: gets the place and the stream, shape [..., d], at every pass.
        entering: as in `hooked`.
    """

    def at(place: Place) -> Callable[[Tensor], None]:
        return lambda h: see(place, h)

    with removed_afterwards(
        [_at(model, place, at(place), first=True, entering=entering) for place in places]
    ):
        yield


def collect_streams(
    model: Model,
    ids: Tensor,
    places: Sequence[Place],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    edit: Intervention = NO_EDIT,
) -> dict[Place, Tensor]:
    """The residual stream at some places, before an edit takes effect there.

    Args:
        model: the model, without hooks.
        ids: token ids, shape [sequences, length].
        places: where to look; the forward pass stops at the last of them.
        progress: told how many sequences are done, and how many there are.
        edit: what is done to the stream; at earlier places it shows.

    Returns:
        By place, shape [sequences, length, d], on the CPU, in the model's dtype.
    """
    found: dict[Place, list[Tensor]] = {place: [] for place in places}
    step = InStep(model, in_batches(model, ids))

    def keep(place: Place, h: Tensor) -> None:
        found[place].append(step.aside.put(h.detach(), copy=True))

    progress(0, len(ids))
    pass_by(model, step, edit, places, keep, lambda part: progress(int(part * len(ids)), len(ids)))
    progress(len(ids), len(ids))
    return {place: step.aside.joined(parts) for place, parts in found.items()}


def pass_by(
    model: Model,
    step: InStep,
    edit: Intervention,
    places: Sequence[Place],
    see: Callable[[Place, Tensor], None],
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Pass a model as far as the last of some places, and show the stream at each of them.

    Args:
        model: the model, without hooks.
        step: the model and its text.
        edit: what is done to the stream.
        places: where to look.
        see: gets the place and the stream of a batch, before the edit takes effect there.
        progress: told which part of the way is done.
    """
    last = max(places)
    first = min([*places, *(site.place for site in edit.sites)])
    common, end = first.layers_before(step.layers), last.layer + 1
    # What enters a layer is seen without that layer.
    is_end = _is_entry(model, last)
    share = common / max(1, end)

    def shown(place: Place, h: Tensor) -> None:
        see(place, h)
        if place == last:
            raise StopEarly

    entered = step.reach(common, lambda part: progress(share * part))
    on_the_way = [place for place in places if not (is_end and place == last)]
    with hooked(model, edit, entering=True), seeing(model, on_the_way, shown, entering=True):
        (left,) = step.through(
            entered, end, progress=lambda part: progress(share + (1 - share) * part)
        )
    if is_end:
        for h in left.hidden:
            see(last, h.to(model.device))


def batch_size(model: Model, length: int) -> int:
    """How many sequences of `length` tokens a model takes at once."""
    return max(1, _TOKENS_PER_BATCH.get(model.device.type, 2048) // length)


def in_batches(model: Model, ids: Tensor) -> tuple[Tensor, ...]:
    """Sequences in batches, as a model takes them."""
    return torch.split(ids, batch_size(model, ids.shape[1]))


def editing_sinks(intervention: Intervention) -> Intervention:
    """The same edits as a plain hook makes them, on attention sinks too."""
    return Intervention(tuple(replace(site, sink_norm=float("inf")) for site in intervention.sites))
