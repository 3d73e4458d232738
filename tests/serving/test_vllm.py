"""A real vLLM serves edited models of every family."""

from __future__ import annotations

import pytest

from tests.serving.conftest import (
    EDITED_JOBS,
    SMOLLM2,
    Job,
    Models,
    ServedBy,
    model_name,
    unedited_jobs,
)
from tests.serving.families import NOT_SERVED, SERVED, WINDOW, Family
from tests.serving.judge import require_the_edit

pytestmark = pytest.mark.serving


OF_FAMILIES = [job for job in EDITED_JOBS if job.process != SMOLLM2]


@pytest.mark.parametrize("job", OF_FAMILIES, ids=str)
def test_vllm_serves_the_edit(served: ServedBy, models: Models, job: Job) -> None:
    """Prompts of unequal length in one batch, prefill and decode steps: every rule of `verify`."""
    require_the_edit(job, models(job.model), served(job.process))


@pytest.mark.parametrize("family", NOT_SERVED)
def test_what_vllm_does_not_run_on_a_cpu(family: str) -> None:
    pytest.skip(f"{family}: {NOT_SERVED[family]}")


@pytest.mark.parametrize("family", [f for f in SERVED if f.has_kinds], ids=str)
def test_layers_that_moved_are_what_they_were(
    served: ServedBy, models: Models, family: Family
) -> None:
    """Windows, rotary embeddings and experts stay with their layers, on texts beyond the window."""
    prompts = models(model_name(family, "float32")).prompts
    assert min(map(len, prompts)) > 2 * WINDOW
    batches = served(family.process).batches
    base, empty = (batches[job][0] for job in unedited_jobs(family))
    for before, after in zip(base, empty, strict=True):
        assert after["tokens"] == before["tokens"]
        assert after["prompt"] == pytest.approx(before["prompt"], abs=1e-5)
        assert after["logprobs"] == pytest.approx(before["logprobs"], abs=1e-5)
