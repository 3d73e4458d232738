"""The heights of edits on streams that whoever verifies has made himself."""

from __future__ import annotations

import pytest
import torch

from hubsplice.intervention.intervention import Intervention
from hubsplice.proving.layer_check import WIDE
from hubsplice.verifying.response import (
    height_limit,
    height_problems,
    layer_responses,
    rise_problems,
    rises,
)
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


def test_a_bend_behind_a_jump_that_is_a_tenth_too_steep() -> None:
    right = Case.of("prenorm", "jump ablate", torch.float32)

    def found(case: Case) -> tuple[list[float], list[str]]:
        edit = Intervention((case.site,))
        made = list(layer_responses(case.stored, edit, stream(7)))
        risen = [
            rise
            for response, term in zip(made, case.site.terms, strict=True)
            for rise in rises(response, term.function)
        ]
        return risen, list(rise_problems(made, edit, torch.bfloat16, WIDE))

    exact, none = found(right)
    assert exact == pytest.approx([1.0, 1.0], abs=0.02)
    assert none == []
    steeper, named = found(right.scaled(1.1))
    assert steeper == pytest.approx([1.1 * rise for rise in exact], rel=1e-3)
    assert len(named) == len(right.site.terms)
    assert "it rises 1.1" in named[0]
