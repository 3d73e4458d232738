"""A real vLLM serves the edited model, however it schedules what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hubsplice.architectures.registry import architecture_of
from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.inserted import inserted_layers
from hubsplice.reproduction import INTERVENTION, load_intervention
from hubsplice.verify.behaviour import Behaviour, Trial, behaviour_checks
from hubsplice.verify.engines import Prompt
from hubsplice.verify.result import Check
from hubsplice.verify.transcript import Transcript
from tests.build.conftest import quiet
from tests.serving.conftest import CHUNKED, FAMILIES, JOBS, NEW_TOKENS, Job, Model, Served

pytestmark = pytest.mark.serving


@dataclass(frozen=True)
class Recorded:
    """vLLM's answers, which were taken before."""

    transcripts: list[Transcript]
    version: str
    name: str = "vLLM"

    def run(
        self,
        folder: Path,
        dtype: str,
        prompts: Sequence[Prompt],
        new_tokens: int,
        progress: Callable[[int, int], None],
    ) -> tuple[list[Transcript], str]:
        return self.transcripts, self.version


def judge(served: Served, job: Job, model: Model) -> tuple[tuple[Check, ...], Behaviour]:
    """The verdict of `hubsplice verify --engine vllm` on what vLLM answered."""
    prompts = model.prompts
    manifest = read_manifest(model.folder / "splice.json")
    trial = Trial(
        model.folder,
        model.base,
        load_intervention(model.folder / INTERVENTION),
        inserted_layers(manifest, architecture_of(BaseConfig.open(model.base).config)),
        None,
        job.dtype,
        prompts,
        NEW_TOKENS,
    )
    engine = Recorded(served.transcripts(job, prompts), served.version)
    checks, behaviour = behaviour_checks(trial, engine, quiet)
    assert behaviour is not None
    return checks, behaviour


@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job.model} {job.dtype} {job.options}")
def test_vllm_serves_the_edit(served: Served, models: dict[str, Model], job: Job) -> None:
    """Prompts of unequal length in one batch, prefill and decode steps: every rule of `verify`."""
    checks, behaviour = judge(served, job, models[job.model])
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
