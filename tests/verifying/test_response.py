"""The heights of edits on streams that whoever verifies has made himself."""

from __future__ import annotations

import pytest
import torch

from hubsplice.intervention.intervention import Intervention
from hubsplice.verifying.response import height_limit, height_problems, layer_responses
from tests.constructions.streams import D, stream
from tests.proving.layers import CONSTRUCTIONS, Case


def problems(case: Case, dtype: torch.dtype) -> list[str]:
    found = list(layer_responses(case.stored, Intervention((case.site,)), stream(7)))
    assert found
    return list(height_problems(found, height_limit(dtype, D)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("construction", CONSTRUCTIONS)
def test_a_right_layer_and_one_that_is_far_too_strong(
    construction: str, dtype: torch.dtype
) -> None:
    case = Case.of(construction, "jump ablate", dtype)
    assert problems(case, dtype) == []
    assert len(problems(case.scaled(4.0), dtype)) == len(case.site.terms)


def test_in_a_stream_of_a_real_model_a_tenth_too_much_is_found() -> None:
    assert height_limit(torch.bfloat16, 576) < 0.1
    assert height_limit(torch.float32, 4096) < 0.05
