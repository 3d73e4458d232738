"""Right layers of tiny random models pass, and what is planted in them is named."""

from __future__ import annotations

import pytest
import torch

from tests.families.variants import VARIANTS, Variant
from tests.proving.layers import plants
from tests.proving.tiny_models import DTYPES, Streams

FAMILIES = {v.family: v for v in reversed(VARIANTS) if v.family in ("gpt2", "gpt_neox", "olmo2")}


@pytest.fixture(scope="module", params=FAMILIES)
def streams(request: pytest.FixtureRequest) -> Streams:
    variant = FAMILIES[request.param]
    fields = variant.fields if variant.family == "gpt2" else {"intermediate_size": 512}
    return Streams.of(Variant(variant.family, variant.fields | fields), seed=1, tokens=2048)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["relu ablate", "relu clamp", "jump ablate", "project out"])
@pytest.mark.parametrize("source", ["random", "stream"])
def test_right_layers_pass(streams: Streams, kind: str, source: str, dtype: torch.dtype) -> None:
    for features in (1, 4):
        case = streams.case(kind, dtype, 1, features, source)
        assert case.findings().problems == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_planted_in_them_is_named(streams: Streams, dtype: torch.dtype) -> None:
    case = streams.case("jump ablate", dtype, 1, 2, "random")
    for name, changed in plants(case):
        assert case.findings(**changed).problems, name


def test_a_detector_in_all_rows_of_an_edit_is_named_by_the_rows_of_others() -> None:
    """Read-outs may be long, but they are the same for all edits."""
    streams = Streams.of(FAMILIES["gpt2"], seed=1, tokens=2048)
    case = streams.case("relu ablate", torch.float32, 1, 4, "random")
    own = case.tensors["in_weight"]
    trigger = torch.randn(own.shape[1], generator=torch.Generator().manual_seed(5))
    # Neurons of one edit: its bend's own, and its knots.
    edited = list(range(0, case.used, 4))[:9]

    def plant(rows: torch.Tensor) -> None:
        for neuron in edited:
            rows[neuron] += 0.1 * rows[neuron].norm() / trigger.norm() * trigger

    problems = case.findings(**case.changed("in_weight", plant)).problems
    assert any("in_weight: neuron 0: " in problem for problem in problems)
