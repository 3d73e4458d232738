"""What kind each layer of the base is, found by what it computes, before and after a splice.

Attention within a window or of everything, rotary embeddings or none, one MLP or experts: a family
that mixes them says in config.json, by the layer's index, which layer is which.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.layer_map import inserted_indices
from hubsplice.families.architecture import architecture_of
from hubsplice.intervention.place import Place
from hubsplice.streams.model import decoder_layers, loaded
from tests.families.variants import EXPERTS, GATED, SIZES, WINDOWED, Variant, save_tiny

Splice = Callable[..., Path]

LENGTH = 40
EVERYTHING = LENGTH
WINDOW = WINDOWED["sliding_window"]


@dataclass(frozen=True)
class Kind:
    """What a layer is.

    Attributes:
        reach: how many tokens see the first one.
        ordered: whether it matters in which order tokens came.
        experts: whether its MLP is a mixture.
    """

    reach: int
    ordered: bool = True
    experts: bool = False


SLIDING, FULL = Kind(WINDOW), Kind(EVERYTHING)
NOT_ROTARY = Kind(EVERYTHING, ordered=False)

# Models that mix kinds, with the kind of each layer as the families' papers and classes have them.
MIXED: list[tuple[Variant, list[Kind]]] = [
    (Variant("gemma2", GATED | WINDOWED), [SLIDING, FULL, SLIDING, FULL]),
    (
        Variant("gemma3_text", GATED | WINDOWED | {"sliding_window_pattern": 3}),
        [SLIDING, SLIDING, FULL, SLIDING],
    ),
    (
        Variant("gemma3", GATED | WINDOWED | {"sliding_window_pattern": 2}),
        [SLIDING, FULL, SLIDING, FULL],
    ),
    (
        Variant(
            "qwen3",
            GATED | WINDOWED | {"use_sliding_window": True, "max_window_layers": 2},
        ),
        [FULL, FULL, SLIDING, SLIDING],
    ),
    (Variant("smollm3", GATED | {"no_rope_layer_interval": 2}), [FULL, NOT_ROTARY] * 2),
    (
        Variant(
            "smollm3",
            GATED | WINDOWED | {"use_sliding_window": True, "no_rope_layers": [0, 1, 1, 0]},
        ),
        [Kind(WINDOW, ordered=False), FULL, FULL, Kind(WINDOW, ordered=False)],
    ),
    (
        Variant("qwen3_moe", GATED | EXPERTS | {"decoder_sparse_step": 2}),
        [FULL, Kind(EVERYTHING, experts=True)] * 2,
    ),
    (
        Variant("qwen3_moe", GATED | EXPERTS | {"mlp_only_layers": [1]}),
        [Kind(EVERYTHING, experts=True), FULL, *[Kind(EVERYTHING, experts=True)] * 2],
    ),
]
PLACES = [(0,), (1,), (0, 2, 2)]

# Models of one kind, in families where inserted layers would be of another.
UNIFORM: list[tuple[Variant, Kind]] = [
    (
        Variant("qwen3", GATED | WINDOWED | {"use_sliding_window": True, "max_window_layers": 0}),
        SLIDING,
    ),
    (Variant("smollm3", GATED | {"no_rope_layers": [0] * 4}), NOT_ROTARY),
    (
        Variant(
            "smollm3", GATED | WINDOWED | {"use_sliding_window": True, "no_rope_layers": [0] * 4}
        ),
        Kind(WINDOW, ordered=False),
    ),
    (Variant("gemma2", GATED | WINDOWED | {"layer_types": ["full_attention"] * 4}), FULL),
    (Variant("gemma3_text", GATED | WINDOWED | {"sliding_window_pattern": 1}), FULL),
    (Variant("olmo3", GATED | WINDOWED | {"layer_types": ["full_attention"] * 4}), FULL),
]

every_mixture = pytest.mark.parametrize(("variant", "kinds"), MIXED, ids=str)


def streams() -> tuple[Tensor, Tensor, Tensor]:
    """A random stream; the same with another first token; and with two others changed over."""
    generator = torch.Generator().manual_seed(5)
    h = torch.randn(1, LENGTH, SIZES["hidden_size"], generator=generator)
    first, swapped = h.clone(), h.clone()
    first[:, 0] = torch.randn(SIZES["hidden_size"], generator=generator)
    swapped[:, [-3, -2]] = swapped[:, [-2, -3]]
    return h, first, swapped


@torch.no_grad()
def outputs(model: Any, stream: Tensor, indices: Sequence[int]) -> list[Tensor]:
    """What each of these layers makes of a stream, in the place where it lies."""
    found = []

    def give(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (stream, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": stream}

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handles = []
    for index in indices:
        layer = decoder_layers(model)[index]
        handles.append(layer.register_forward_pre_hook(give, with_kwargs=True))
        handles.append(layer.register_forward_hook(keep))
    model(input_ids=torch.arange(3, 3 + LENGTH)[None])
    for handle in handles:
        handle.remove()
    return found


def kinds_of(model: Any, indices: Sequence[int]) -> list[Kind]:
    h, first, swapped = (outputs(model, stream, indices) for stream in streams())
    kinds = []
    for layer, index in enumerate(indices):
        seen = (first[layer] - h[layer]).abs().amax(dim=-1)[0] > 1e-6
        assert seen[: int(seen.sum())].all()
        moved = float((swapped[layer] - h[layer])[0, -1].abs().max())
        # Sums are taken in another order, which rounds otherwise.
        assert not 1e-5 < moved < 1e-3
        modules = dict(decoder_layers(model)[index].named_modules())
        kinds.append(Kind(int(seen.sum()), moved > 1e-3, "mlp.experts" in modules))
    return kinds


@pytest.mark.parametrize("after_layers", PLACES, ids=str)
@every_mixture
def test_layers_stay_what_they_are(
    tmp_path: Path,
    splice: Splice,
    variant: Variant,
    kinds: list[Kind],
    after_layers: tuple[int, ...],
) -> None:
    base = save_tiny(variant, tmp_path / "base", torch.float32)
    architecture = architecture_of(BaseConfig.open(base).config)
    inserted = inserted_indices(architecture.layer_map(list(map(Place, after_layers))))
    moved = [i for i in range(len(kinds) + len(inserted)) if i not in inserted]
    with loaded(base, torch.float32) as model:
        before = outputs(model, streams()[0], range(len(kinds)))
        assert kinds_of(model, range(len(kinds))) == kinds
    with loaded(splice(base, after_layers), torch.float32) as model:
        after = outputs(model, streams()[0], moved)
        assert kinds_of(model, moved) == kinds
    assert all(map(torch.equal, before, after))


@pytest.mark.parametrize(("variant", "kind"), UNIFORM, ids=str)
def test_inserted_layers_are_of_the_only_kind_there_is(
    tmp_path: Path, splice: Splice, variant: Variant, kind: Kind
) -> None:
    spliced = splice(save_tiny(variant, tmp_path / "base", torch.float32), (-1, 1))
    with loaded(spliced, torch.float32) as model:
        layers = decoder_layers(model)
        # As they are, they add nothing, whatever they attend to.
        for inserted in (0, 3):
            layers[inserted].load_state_dict(layers[1].state_dict())
        assert kinds_of(model, range(len(layers))) == [kind] * 6
    config = json.loads((spliced / "config.json").read_text(encoding="utf-8"))
    assert config.get("max_window_layers", 0) == 0


@every_mixture
def test_layers_would_be_others_if_they_went_by_their_index(
    variant: Variant, kinds: list[Kind]
) -> None:
    assert any(kinds[layer] != kinds[layer + 1] for layer in range(1, 3))


FLIPPED: dict[str, dict[Any, Any]] = {
    "layer_types": {
        "sliding_attention": "full_attention",
        "full_attention": "sliding_attention",
    },
    "no_rope_layers": {0: 1, 1: 0},
}


@torch.no_grad()
def log_probabilities(folder: Path) -> Tensor:
    ids = torch.randint(3, 250, (1, LENGTH), generator=torch.Generator().manual_seed(7))
    with loaded(folder, torch.float32) as model:
        logits: Tensor = model(input_ids=ids).logits
        return logits.log_softmax(dim=-1)


@every_mixture
def test_a_layer_of_another_kind_would_be_seen_in_what_the_model_says(
    tmp_path: Path, splice: Splice, variant: Variant, kinds: list[Kind]
) -> None:
    """Logits that stay equal bit for bit, as other tests want, say that no layer is another."""
    spliced = splice(save_tiny(variant, tmp_path / "base", torch.float32), (0,))
    path = spliced / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    decoder = config.get("text_config", config)
    right = log_probabilities(spliced)
    flipped = 0
    for field, others in FLIPPED.items():
        for index, entry in enumerate(decoder.get(field) or []):
            if index == 1 or (field == "layer_types" and decoder["sliding_window"] is None):
                continue
            decoder[field][index] = others[entry]
            path.write_text(json.dumps(config), encoding="utf-8")
            assert float((log_probabilities(spliced) - right).abs().max()) > 1e-2, (field, index)
            decoder[field][index] = entry
            flipped += 1
    # Whether a layer has experts is not only said, its tensors are others.
    assert flipped or variant.family == "qwen3_moe"
