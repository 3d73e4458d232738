"""A real vLLM serves the edited SmolLM2, however it is started and schedules what it is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.serving.conftest import (
    CHUNKED,
    EDITED_JOBS,
    JOBS,
    NEW_TOKENS,
    SMOLLM2,
    Job,
    Models,
    ServedBy,
)
from tests.serving.judge import require_the_edit
from tests.serving.server import printed_command, request, running

pytestmark = pytest.mark.serving

OF_SMOLLM2 = [job for job in EDITED_JOBS if job.process == SMOLLM2]


@pytest.mark.parametrize("job", OF_SMOLLM2, ids=str)
def test_vllm_serves_the_edit(served: ServedBy, models: Models, job: Job) -> None:
    """Prompts of unequal length in one batch, prefill and decode steps: every rule of `verify`."""
    require_the_edit(job, models(job.model), served(job.process))


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


SERVED_AS = Job("amplified", "bfloat16")


def test_a_completion_is_the_offline_engines(
    python: Path, models: Models, served: ServedBy
) -> None:
    model = models(SERVED_AS.model)
    command = printed_command(model.folder / "README.md")
    assert command[2] == model.folder.name
    prompt = model.prompts[0]
    with running(python, command, model.folder.parent) as port:
        status, body = request(
            port,
            "POST",
            "/v1/completions",
            {
                "model": command[2],
                "prompt": list(prompt),
                "max_tokens": NEW_TOKENS,
                "temperature": 0,
                "ignore_eos": True,
                "logprobs": 0,
            },
        )
    assert status == 200, body
    (choice,) = json.loads(body)["choices"]
    (alone,) = served(SERVED_AS.process).batches[SERVED_AS][2]
    tokenizer = AutoTokenizer.from_pretrained(model.base)
    assert choice["text"] == tokenizer.decode(alone["tokens"])
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(alone["logprobs"], abs=1e-3)
