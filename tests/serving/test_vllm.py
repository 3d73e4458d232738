"""A real vLLM serves the edited model, however it schedules what it is asked."""

from __future__ import annotations

import pytest

from hubsplice.checkpoint.manifest import read_manifest
from tests.serving.conftest import CHUNKED, FAMILIES, JOBS, Job, Model, Served
from tests.serving.judge import Recorded, judge

pytestmark = pytest.mark.serving


@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job.model} {job.dtype} {job.options}")
def test_vllm_serves_the_edit(served: Served, models: dict[str, Model], job: Job) -> None:
    """Prompts of unequal length in one batch, prefill and decode steps: every rule of `verify`."""
    model = models[job.model]
    engine = Recorded(served.transcripts(job, model.prompts), served.version, "vLLM")
    checks, behaviour = judge(engine, job.dtype, model)
    print(job, behaviour.model_dump_json())  # noqa: T201
    assert [check for check in checks if not check.passed] == []
    if job.dtype == "float32":
        assert behaviour.largest_serving_error is not None
        assert behaviour.largest_serving_error < 1e-3
        assert behaviour.error < 0.1 * behaviour.effect


def test_the_families_are_those_that_become_llama(models: dict[str, Model]) -> None:
    before = {
        read_manifest(models[f].folder / "splice.json").architectures.before for f in FAMILIES
    }
    assert before == {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"}


def test_chunks_and_cached_prefixes_change_nothing(
    served: Served, models: dict[str, Model]
) -> None:
    (whole,) = [
        job for job in JOBS if (job.model, job.dtype, job.options) == ("amplified", "float32", ())
    ]
    prompts = models["amplified"].prompts
    assert max(map(len, prompts)) > dict(CHUNKED.options)["max_num_batched_tokens"]
    assert len(prompts) > dict(CHUNKED.options)["max_num_seqs"]
    first, again, alone = served.batches[CHUNKED]
    assert sum(answer["cached"] for answer in again) > 0
    for reference in served.batches[whole][:2]:
        for batch in (first, again):
            for answer, expected in zip(batch, reference, strict=True):
                assert answer["tokens"] == expected["tokens"]
                assert answer["logprobs"] == pytest.approx(expected["logprobs"], abs=1e-3)
    assert alone[0]["tokens"] == first[0]["tokens"]
    assert alone[0]["logprobs"] == pytest.approx(first[0]["logprobs"], abs=1e-3)
