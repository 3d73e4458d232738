"""Spliced models, and as few processes of a real vLLM as run all of them in turn.

The engine is slow to start: all jobs of a process are given to it at once, and the tests look at
what came back. `make test-serving` runs two processes of tests, with one thread each, and all tests
of a file in one of them: what asks one process of vLLM stands in one file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from hubsplice.building.build import build
from hubsplice.recipe.reading import parse_recipe
from hubsplice.streams.vllm import run_vllm
from hubsplice.verifying.engines import Prompt
from hubsplice.verifying.prompts import builtin_prompts
from hubsplice.verifying.transcript import Transcript
from tests.building.conftest import TEXT as BUILD_TEXT
from tests.building.conftest import Build, Workshop, make, quiet, workshop
from tests.families.variants import save_tiny
from tests.serving.families import SERVED, Family
from tests.tiny_tokenizer import byte_tokenizer

__all__ = ["Build", "Workshop", "make", "workshop"]

REPOSITORY = Path(__file__).parents[2]
SAE = REPOSITORY / "examples" / "sae-smollm2-135m-l13"
NEW_TOKENS = 8

# Text on which the edits act; of unequal lengths, so that batches are ragged.
ABOUT_COMPUTERS_AND_FOOD = (
    "A computer has a processor, a disk, a keyboard and a screen.",
    "For breakfast we had bread with butter, fried eggs, a bowl of oats with milk and honey, and "
    "after that two cups of black coffee with sugar and a slice of apple cake.",
    "The software on her laptop would not start after the last update.",
    "Boil the rice, chop the onions and the garlic, and fry them in oil.",
    "Programs are stored on the hard drive and loaded into memory before the computer's processor "
    "can run them; the operating system decides which program runs when.",
    "Soup!",
    "He bought a new graphics card for his PC, and a pizza to eat while he installed it.",
    "The Internet connects computers all over the world, so that e-mail takes seconds.",
)
TEXT = """
calibration: {tokens: 3072, sequence_length: 64}
fidelity: {tokens: 512}
card: {prompts: []}
"""

# By name: what SmolLM2 is spliced with. Features: 0 outer space, 1 computers, 2 food.
SMOLLM2_SPLICES = {
    "amplified": """
  - sae: {path: SAE}
    edits:
      - {feature: 0, kind: clamp, to: 5.6}
      - {feature: 1, kind: scale, factor: -2}
""",
    "jumps": """
  - sae: {path: SAE}
    edits:
      - {feature: 1, kind: gated_steer, strength: 0.4 x norm}
      - {feature: 2, kind: clamp, to: 20, when: active}
""",
    "two splices": """
  - sae: {path: SAE}
    edits:
      - {feature: 1, kind: ablate}
      - {feature: 0, kind: steer, strength: 0.1 x norm}
  - after_layer: 20
    edits: [{kind: steer, vector: {path: v.safetensors}, strength: 0.15 x norm}]
""",
    "inside a layer": """
  - after_attention: 13
    sae: {path: SAE}
    edits:
      - {feature: 0, kind: clamp, to: 5.6}
      - {feature: 1, kind: scale, factor: -2}
""",
}
DTYPES = ("float32", "bfloat16")
FAMILY_SPLICES = """
  - {after_layer: 2, edits: [{kind: steer, vector: {path: v.safetensors}, strength: 3}]}
  - sae: {path: jumprelu}
    edits:
      - {kind: scale, feature: 3, factor: 4}
      - {kind: clamp, feature: 5, to: 2, when: active}
"""


# Every layer but the first moves by one, so that those that alternate would change places.
MEAN = 0.4
EMPTY_SPLICE = "  - {after_layer: 0}"
BASE, EMPTY = "base", "empty"
SMOLLM2 = "SmolLM2"

# A Llama whose recipe names engines one of which ignores the biases of its MLP.
FOR_SGLANG_TOO = "llama for SGLang too"


def interpreter(variable: str) -> Path:
    """The interpreter that a variable names; a test that needs it is skipped without."""
    named = os.environ.get(variable)
    if named is None:
        pytest.skip(f"{variable} names no interpreter; `make test-serving` makes one")
    if not Path(named).is_file():
        pytest.skip(f"{variable}: there is no {named}")
    return Path(named)


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of vLLM's environment."""
    return interpreter("HUBSPLICE_VLLM_PYTHON")


@dataclass(frozen=True)
class Model:
    """A spliced checkpoint and its base."""

    folder: Path
    base: Path
    prompts: tuple[Prompt, ...]


@pytest.fixture(scope="session")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `v.safetensors`, of which recipes take a direction for SmolLM2."""
    folder = tmp_path_factory.mktemp("vectors")
    generator = torch.Generator().manual_seed(0)
    save_file({"v": torch.randn(576, generator=generator)}, folder / "v.safetensors")
    return folder


SpliceSmolLM2 = Callable[[str, Path], Model]


@pytest.fixture(scope="session")
def splice_smollm2(smollm2: Path, vectors: Path) -> SpliceSmolLM2:
    """Make one of SMOLLM2_SPLICES, compiled for bfloat16, by name in a folder."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    prompts = tuple(tuple(tokenizer(text).input_ids) for text in ABOUT_COMPUTERS_AND_FOOD)

    def splice(name: str, folder: Path) -> Model:
        splices = SMOLLM2_SPLICES[name].replace("SAE", str(SAE))
        result = build(
            parse_recipe(f"base_model: {smollm2}\nsplices:{splices}{TEXT}", folder=vectors),
            output=folder / name.replace(" ", "-"),
            require_fidelity=None,
            measure=False,
            hard_link=False,
            progress=quiet,
        )
        return Model(result.folder, smollm2, prompts)

    return splice


Models = Callable[[str], Model]


@pytest.fixture(scope="session")
def models(
    splice_smollm2: SpliceSmolLM2, make: Build, tmp_path_factory: pytest.TempPathFactory
) -> Models:
    """By name, made when first asked for; not to be changed.

    SmolLM2 is compiled for bfloat16, the families for either precision.
    """
    folder = tmp_path_factory.mktemp("spliced")
    families = {str(family): family for family in SERVED}

    @cache
    def made(name: str) -> Model:
        if name in SMOLLM2_SPLICES:
            return splice_smollm2(name, tmp_path_factory.mktemp("spliced"))
        family, what = name.rsplit(" ", 1)
        if family == FOR_SGLANG_TOO:
            llama = made(model_name(SERVED[0], what))
            more = f"serve_with: [vllm, sglang]\n{BUILD_TEXT}"
            result = make(FAMILY_SPLICES, folder / name, base=llama.base, more=more)
            return replace(llama, folder=result.folder)
        if what in DTYPES:
            base = save_tiny(
                families[family].variant, folder / f"{name} base", getattr(torch, what), mean=MEAN
            )
            byte_tokenizer().save_pretrained(base)
            result = make(FAMILY_SPLICES, folder / name, base=base)
            return Model(result.folder, base, builtin_prompts(AutoTokenizer.from_pretrained(base)))
        edited = made(model_name(families[family], "float32"))
        if what == BASE:
            return replace(edited, folder=edited.base)
        empty = make(EMPTY_SPLICE, folder / name, base=edited.base, measure=False)
        return replace(edited, folder=empty.folder)

    return made


def model_name(family: Family, dtype: str) -> str:
    """What `models` calls a family's model."""
    return f"{family} {dtype}"


@dataclass(frozen=True)
class Job:
    """A model, how it is served, and by which process."""

    model: str
    dtype: str
    options: tuple[tuple[str, Any], ...] = ()
    process: str = SMOLLM2

    def __str__(self) -> str:
        return " ".join([self.model, self.dtype, *(f"{k}={v}" for k, v in self.options)])


# Prompts are longer than a step may read (chunked prefill), more than run at once, and asked
# twice (prefix caching).
CHUNKED = Job(
    "amplified",
    "float32",
    (
        ("max_num_batched_tokens", 32),
        ("max_num_seqs", 3),
        ("enable_prefix_caching", True),
        ("block_size", 32),
    ),
)


def jobs_of(family: Family) -> Iterator[Job]:
    """Its models, each in the precision that it was compiled for."""
    for dtype in DTYPES:
        yield Job(model_name(family, dtype), dtype, family.options, family.process)


def unedited_jobs(family: Family) -> tuple[Job, Job]:
    """The base, and the base with an empty layer in it."""
    base, empty = (
        Job(f"{family} {what}", "float32", family.options, family.process) for what in (BASE, EMPTY)
    )
    return base, empty


EDITED_JOBS = (
    *(Job(name, dtype) for name in SMOLLM2_SPLICES for dtype in DTYPES),
    *(job for family in SERVED for job in jobs_of(family)),
    *(Job(f"{FOR_SGLANG_TOO} {d}", d, process=SERVED[0].process) for d in DTYPES),
    CHUNKED,
)
JOBS = (
    *EDITED_JOBS,
    *(job for family in SERVED if family.has_kinds for job in unedited_jobs(family)),
)

Answers = list[dict[str, Any]]


@dataclass(frozen=True)
class Served:
    """What a process of vLLM answered to each of its jobs, batch by batch.

    The batches are all prompts at once, all of them again without the log probabilities of the
    prompt, and the first prompt alone.
    """

    version: str
    batches: dict[Job, list[Answers]]

    def transcripts(self, job: Job, prompts: Sequence[Prompt]) -> list[Transcript]:
        return Transcript.of_answers(prompts, self.batches[job][0])


ServedBy = Callable[[str], Served]


@pytest.fixture(scope="session")
def served(python: Path, models: Models) -> ServedBy:
    """By the name of a process, everything that it is asked offline."""

    def asked(prompts: Sequence[Prompt], *, prompt_logprobs: bool) -> list[dict[str, Any]]:
        return [
            {"prompt": list(p), "new_tokens": NEW_TOKENS, "prompt_logprobs": prompt_logprobs}
            for p in prompts
        ]

    def description(job: Job) -> dict[str, Any]:
        model = models(job.model)
        return {
            "model": str(model.folder),
            "options": {
                "dtype": job.dtype,
                "enforce_eager": True,
                "skip_tokenizer_init": True,
                "max_model_len": 256,
                **dict(job.options),
            },
            "batches": [
                asked(model.prompts, prompt_logprobs=True),
                asked(model.prompts, prompt_logprobs=False),
                asked(model.prompts[:1], prompt_logprobs=False),
            ],
        }

    @cache
    def answered(process: str) -> Served:
        jobs = [job for job in JOBS if job.process == process]
        answers = run_vllm(python, [description(job) for job in jobs])
        return Served(
            answers[0]["version"],
            {job: answer["batches"] for job, answer in zip(jobs, answers, strict=True)},
        )

    return answered
