"""A real vLLM serves the edited model, however it schedules what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hubsplice.architectures.registry import architecture_of
from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.fidelity.report import read_report
from hubsplice.inserted import inserted_layers
from hubsplice.reproduction import INTERVENTION, load_intervention
from hubsplice.verify.behaviour import Behaviour, Trial, behaviour_checks
from hubsplice.verify.engines import Prompt
from hubsplice.verify.result import Check
from hubsplice.verify.transcript import Transcript
from tests.build.conftest import quiet
from tests.serving.conftest import (
    CHUNKED,
    EDITED_JOBS,
    JOBS,
    NEW_TOKENS,
    Job,
    Model,
    Served,
    model_name,
    unedited_jobs,
)
from tests.serving.families import FAMILIES, NOT_SERVED, WINDOW, Family

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
        read_report(model.folder),
        job.dtype,
        prompts,
        NEW_TOKENS,
    )
    engine = Recorded(served.transcripts(job, prompts), served.version)
    checks, behaviour = behaviour_checks(trial, engine, quiet)
    assert behaviour is not None
    return checks, behaviour


@pytest.mark.parametrize("job", EDITED_JOBS, ids=str)
def test_vllm_serves_the_edit(served: Served, models: dict[str, Model], job: Job) -> None:
    """Prompts of unequal length in one batch, prefill and decode steps: every rule of `verify`."""
    checks, behaviour = judge(served, job, models[job.model])
    print(job, behaviour.model_dump_json())  # noqa: T201
    assert [check for check in checks if not check.passed] == []
    if job.dtype == "float32":
        assert behaviour.largest_serving_error is not None
        assert behaviour.largest_serving_error < 1e-3
        assert behaviour.error < 0.1 * behaviour.effect


@pytest.mark.parametrize("family", NOT_SERVED)
def test_what_vllm_does_not_run_on_a_cpu(family: str) -> None:
    pytest.skip(f"{family}: {NOT_SERVED[family]}")


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.has_kinds], ids=str)
def test_layers_that_moved_are_what_they_were(
    served: Served, models: dict[str, Model], family: Family
) -> None:
    """Windows, rotary embeddings and experts stay with their layers, on texts beyond the window."""
    prompts = models[model_name(family, "float32")].prompts
    assert min(map(len, prompts)) > 2 * WINDOW
    base, empty = (served.batches[job][0] for job in unedited_jobs(family))
    for before, after in zip(base, empty, strict=True):
        assert after["tokens"] == before["tokens"]
        assert after["prompt"] == pytest.approx(before["prompt"], abs=1e-5)
        assert after["logprobs"] == pytest.approx(before["logprobs"], abs=1e-5)


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
