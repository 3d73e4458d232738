"""A real vLLM serves the edited model, however it schedules what it is asked."""

from __future__ import annotations

import pytest

from tests.serving.conftest import (
    CHUNKED,
    EDITED_JOBS,
    JOBS,
    Job,
    Models,
    ServedBy,
    in_its_process,
    model_name,
    unedited_jobs,
)
from tests.serving.families import NOT_SERVED, SERVED, WINDOW, Family
from tests.serving.judge import Recorded, judge

pytestmark = pytest.mark.serving


@pytest.mark.parametrize(
    "job", [pytest.param(j, id=str(j), marks=in_its_process(j.process)) for j in EDITED_JOBS]
)
def test_vllm_serves_the_edit(served: ServedBy, models: Models, job: Job) -> None:
    """Prompts of unequal length in one batch, prefill and decode steps: every rule of `verify`."""
    model, found = models(job.model), served(job.process)
    engine = Recorded(found.transcripts(job, model.prompts), found.version, "vLLM")
    checks, behaviour = judge(engine, job.dtype, model)
    print(job, behaviour.model_dump_json())  # noqa: T201
    assert [check for check in checks if not check.passed] == []
    if job.dtype == "float32":
        assert behaviour.largest_serving_error is not None
        assert behaviour.largest_serving_error < 1e-3
        assert behaviour.error < 0.1 * behaviour.effect


@pytest.mark.parametrize("family", NOT_SERVED)
def test_what_vllm_does_not_run_on_a_cpu(family: str) -> None:
    pytest.skip(f"{family}: {NOT_SERVED[family]}")


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, id=str(f), marks=in_its_process(f.process)) for f in SERVED if f.has_kinds],
)
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


@in_its_process(CHUNKED.process)
def test_chunks_and_cached_prefixes_change_nothing(served: ServedBy, models: Models) -> None:
    (whole,) = [
        job for job in JOBS if (job.model, job.dtype, job.options) == ("amplified", "float32", ())
    ]
    prompts = models("amplified").prompts
    batches = served(CHUNKED.process).batches
    assert max(map(len, prompts)) > dict(CHUNKED.options)["max_num_batched_tokens"]
    assert len(prompts) > dict(CHUNKED.options)["max_num_seqs"]
    first, again, alone = batches[CHUNKED]
    assert sum(answer["cached"] for answer in again) > 0
    for reference in batches[whole][:2]:
        for batch in (first, again):
            for answer, expected in zip(batch, reference, strict=True):
                assert answer["tokens"] == expected["tokens"]
                assert answer["logprobs"] == pytest.approx(expected["logprobs"], abs=1e-3)
    assert alone[0]["tokens"] == first[0]["tokens"]
    assert alone[0]["logprobs"] == pytest.approx(first[0]["logprobs"], abs=1e-3)
