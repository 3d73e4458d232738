"""Gemma 3: the tower of the models that see, and edits of the real 270M model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Gemma3ForCausalLM, Gemma3ForConditionalGeneration

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.compiling.construct import compile_site
from hubsplice.compiling.linker import Linker
from hubsplice.constructions.sandwich_layer import SandwichLayer
from hubsplice.families.architecture import architecture_of
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site, Term
from hubsplice.recipe.models import Calibration, Fidelity
from hubsplice.streams.calibration import SiteActivations, median_norm, stream_at
from hubsplice.streams.model import decoder_layers, hooked, loaded
from hubsplice.text.sequences import load_sequences
from hubsplice.text.tokenizer import load_tokenizer
from tests.families.logits import same_bits
from tests.families.variants import GATED, WINDOWED, Variant, save_tiny

Splice = Callable[..., Path]

SLIDING, FULL = "sliding_attention", "full_attention"
DTYPES = [torch.float32, torch.bfloat16]


def config_of(**fields: Any) -> dict[str, Any]:
    """A text config.json as the checkpoints on the Hub have it."""
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_size": 64,
        "num_hidden_layers": 8,
        "torch_dtype": "bfloat16",
        **fields,
    }


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"sliding_window_pattern": 3}, [SLIDING, SLIDING, SLIDING, FULL] + [SLIDING] * 2 + [FULL]),
        ({}, [SLIDING] * 6 + [FULL]),
        # What transformers stores and does not read.
        ({"_sliding_window_pattern": 2}, [SLIDING] * 6 + [FULL]),
    ],
)
def test_layer_types_that_were_implied_are_written_out(
    pattern: dict[str, int], expected: list[str]
) -> None:
    architecture = architecture_of(config_of(**pattern))
    result = Linker(architecture, architecture.layer_map([Place(0)])).config(torch.bfloat16)
    assert result["layer_types"][: len(expected)] == expected
    assert len(result["layer_types"]) == 9
    assert not any("pattern" in key for key in result)


TOWER = Variant("gemma3", GATED | WINDOWED | {"sliding_window_pattern": 2})


@torch.no_grad()
def logits_of(folder: Path, dtype: torch.dtype) -> Tensor:
    ids = torch.randint(3, 300, (2, 40), generator=torch.Generator().manual_seed(1))
    with loaded(folder, dtype) as model:
        assert type(model) is Gemma3ForConditionalGeneration
        logits: Tensor = model(input_ids=ids).logits
        return logits


def rename_as_first_released(folder: Path) -> None:
    """Give tensors the names that the checkpoints on the Hub have."""
    (file,) = folder.glob("*.safetensors")
    names = {
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    }
    renamed = {}
    for name, tensor in load_file(file).items():
        for new, old in names.items():
            name = name.replace(new, old) if name.startswith(new) else name
        renamed[name] = tensor
    save_file(renamed, file, metadata={"format": "pt"})


@pytest.mark.parametrize("as_released", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tower_is_spliced_and_stays_what_it_is(
    tmp_path: Path, splice: Splice, dtype: torch.dtype, as_released: bool
) -> None:
    base = save_tiny(TOWER, tmp_path / "base", dtype)
    if as_released:
        rename_as_first_released(base)
    wanted = logits_of(base, dtype)
    assert same_bits(wanted, logits_of(splice(base, (1, 3)), dtype))
    layer = SandwichLayer.empty(64, dtype)
    steer = torch.zeros(64, dtype=dtype)
    steer[3] = 1.0
    # A bias that attention adds, and that nothing takes away.
    layer = replace(layer, attention_bias=steer, attention_norm=torch.zeros_like(steer))
    assert not torch.equal(wanted, logits_of(splice(base, (1,), [layer], name="steered"), dtype))


@pytest.mark.parametrize("kind", ["relu ablate", "jump ablate", "steer"])
def test_an_edit_of_a_tower_is_the_hooks_beside_an_image(
    tmp_path: Path, splice: Splice, kind: str
) -> None:
    base = save_tiny(TOWER, tmp_path / "base", torch.float32)
    generator = torch.Generator().manual_seed(3)
    text = torch.randint(3, 300, (24, 64), generator=generator)
    seen = torch.randint(3, 300, (2, 40), generator=generator)
    seen[:, 7] = 319
    image = torch.randn(2, 3, 28, 28, generator=generator)
    architecture = architecture_of(BaseConfig.open(base).config)

    def read(model: Any) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model(input_ids=seen, pixel_values=image).logits
            return logits.double().log_softmax(dim=-1)

    with loaded(base, torch.float32) as model:
        h = stream_at(model, text, [Place(1)], Intervention(()), lambda _a, _b: None)[Place(1)]
        function = EDITS[kind][0]
        terms = [
            replace(t, function=function(float((h @ t.encoder).std())))
            for t in random_features(h, 4)
        ]
        site = Site(1, tuple(terms), 5 * median_norm(h))
        unedited = read(model)
        with hooked(model, Intervention((site,))):
            truth = read(model)
        half = replace(site, terms=tuple(replace(t, direction=t.direction / 2) for t in terms))
        with hooked(model, Intervention((half,))):
            half_as_strong = read(model)
    layer = compile_site(
        architecture,
        site,
        SiteActivations(h, h, median_norm(h), architecture.norm_eps),
        torch.float32,
    )
    with loaded(splice(base, (1,), [layer]), torch.float32) as model:
        spliced = read(model)

    def divergence(other: Tensor) -> float:
        return float((truth.exp() * (truth - other)).sum(dim=-1).mean())

    assert divergence(unedited) > 1e-4
    # From processor to processor, and from seed to seed, it is 2e-6 to 1.3e-5.
    assert divergence(spliced) < 1e-3 * divergence(unedited)
    assert divergence(half_as_strong) > 0.1 * divergence(unedited)


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """The folder of Gemma 3 270M in bfloat16."""
    from examples.gemma3 import fetch_gemma3

    return fetch_gemma3()


LAYER = 9


@pytest.mark.slow
def test_it_is_a_plain_bfloat16_gemma_that_knows_a_fact(gemma3: Path) -> None:
    tokenizer = load_tokenizer(gemma3)
    with loaded(gemma3, torch.bfloat16) as model:
        assert type(model) is Gemma3ForCausalLM
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        assert model.lm_head.weight is model.model.embed_tokens.weight
        prompt = tokenizer("The capital of France is the city of", return_tensors="pt")
        assert prompt.input_ids[0, 0] == tokenizer.bos_token_id
        with torch.no_grad():
            best = model(**prompt).logits[0, -1].argmax()
    assert tokenizer.decode(best) == " Paris"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_empty_splice_of_the_real_model_changes_no_bit(
    gemma3: Path, splice: Splice, dtype: torch.dtype
) -> None:
    tokenizer = load_tokenizer(gemma3)
    ids = tokenizer("A splice that is empty leaves every bit as it was.", return_tensors="pt")
    outputs, layers = [], 0
    for folder in (gemma3, splice(gemma3, (LAYER,))):
        with loaded(folder, dtype) as model, torch.no_grad():
            outputs.append(model(**ids).logits)
            layers = len(decoder_layers(model))
    assert layers == 19
    assert same_bits(*outputs)


P = PiecewiseLinear

# By the edit: its function of p for p's deviation s, and how much of it may be wrong in float32.
EDITS: dict[str, tuple[Callable[[float], PiecewiseLinear], float]] = {
    "relu ablate": (lambda _s: P((0.0,), (0.0, -1.0), (0.0, 0.0)), 0.005),
    "jump ablate": (lambda s: P((0.3 * s,), (0.0, -1.0), (0.0, 0.0)), 0.03),
    "steer": (lambda s: P((), (0.0,), (s,)), 0.005),
}

# In bfloat16, against the error of the hook itself at the site.
RATIO = 1.5


def random_features(h: Tensor, count: int) -> list[Term]:
    """Features that fire on one token in ten.

    They read and write differences between tokens: what a model reads lies where its stream does.
    """
    generator = torch.Generator().manual_seed(3)
    typical = h.std(dim=0)
    terms = []
    for first, second in torch.randint(len(h), (count, 2), generator=generator).tolist():
        difference = (h[first] - h[second]) / typical
        unit = difference / difference.norm()
        p = h @ (unit / typical)
        nothing = P.constant(0.0)
        terms.append(Term("", unit / typical, -float(p.quantile(0.9)), nothing, unit * typical))
    return terms


@pytest.fixture(scope="module")
def streams(gemma3: Path) -> dict[tuple[torch.dtype, str], Tensor]:
    """The stream after a layer, by precision and part of the text, shape [tokens, d]."""
    tokenizer = load_tokenizer(gemma3)
    texts = {
        "calibration": load_sequences(Calibration(), tokenizer, seed=0, part="calibration").ids,
        "held-out": load_sequences(Fidelity(tokens=2000), tokenizer, seed=0, part="held-out").ids,
    }
    found = {}
    for dtype in DTYPES:
        with loaded(gemma3, dtype) as model:
            for part, ids in texts.items():
                place = Place(LAYER)
                stream = stream_at(model, ids, [place], Intervention(()), lambda _a, _b: None)
                found[dtype, part] = stream[place]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", EDITS)
def test_edits_of_the_real_stream(
    gemma3: Path, streams: dict[tuple[torch.dtype, str], Tensor], kind: str
) -> None:
    function, bar = EDITS[kind]
    h = streams[torch.float32, "calibration"]
    sink_norm = 5 * median_norm(h)
    terms = [
        replace(t, function=function(float((h @ t.encoder)[h.norm(dim=-1) <= sink_norm].std())))
        for t in random_features(h[h.norm(dim=-1) <= sink_norm], 6)
    ]
    site = Site(LAYER, tuple(terms), sink_norm)
    architecture = architecture_of(BaseConfig.open(gemma3).config)
    eps = architecture.norm_eps
    layers = {
        dtype: compile_site(
            architecture,
            site,
            SiteActivations(h, streams[dtype, "calibration"], median_norm(h), eps),
            dtype,
        )
        for dtype in DTYPES
    }
    seen = streams[torch.float32, "held-out"]
    sinks = site.is_sink(seen)
    assert sinks.any()
    wanted = site.delta(seen)
    made = layers[torch.float32](seen, eps) - seen
    touched = (wanted.norm(dim=-1) > 0) & ~sinks
    assert (made - wanted)[touched].norm() <= bar * wanted[touched].norm()
    served = streams[torch.bfloat16, "held-out"]
    splice = layers[torch.bfloat16](served, eps).float()
    # Wide channels are no more than narrow ones to what reads them.
    truth, size = seen + wanted, seen[~sinks].std(dim=0)
    floor = ((site.edit(served).float() - truth) / size)[~sinks].square().mean(dim=1).median()
    error = ((splice - truth) / size)[~sinks].square().mean(dim=1).median()
    assert error <= RATIO * floor
    for change in (made, splice - served.float()):
        assert (change[sinks].norm(dim=-1) <= 1e-3 * seen[sinks].norm(dim=-1)).all()
