"""A real vLLM serves a base and two edits from one carrier, in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from hubsplice.streams.model import loaded
from hubsplice.streams.vllm import run_vllm
from hubsplice.verifying.prompts import builtin_prompts
from tests.building.conftest import Workshop
from tests.families.variants import save_tiny
from tests.serving.carried import BASE, KINDS, Answered, build
from tests.serving.conftest import ABOUT_COMPUTERS_AND_FOOD, MEAN
from tests.serving.families import SERVED
from tests.tiny_tokenizer import byte_tokenizer

pytestmark = pytest.mark.serving

EDITED = [(kind, name) for kind, found in KINDS.items() for name in found.splices]


@dataclass(frozen=True)
class Served:
    """What vLLM answered, by the model that answers in transformers.

    `mixed` is of all models in one batch, `again` of the same batch once more, `base` of the base
    itself.
    """

    models: dict[str, Path]
    mixed: dict[str, list[Answered]]
    again: dict[str, list[Answered]]
    base: dict[str, list[Answered]]


@pytest.fixture(scope="module")
def served(
    python: Path, smollm2: Path, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Served]:
    """By kind; one process of vLLM serves all of them in turn."""
    folder = tmp_path_factory.mktemp("adapters")
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    texts = [tuple(tokenizer(text).input_ids) for text in ABOUT_COMPUTERS_AND_FOOD]
    (variant,) = {s.variant for s in SERVED if str(s) == "qwen3"}
    qwen3 = save_tiny(variant, folder / "qwen3", torch.float32, mean=MEAN)
    byte_tokenizer().save_pretrained(qwen3)
    bytes_ = builtin_prompts(AutoTokenizer.from_pretrained(qwen3))
    stages = {
        name: build(KINDS[name], base, prompts, workshop.folder, folder / name)
        for name, base, prompts in (("SmolLM2", smollm2, texts), ("Qwen3", qwen3, bytes_))
    }
    jobs = [job for stage in stages.values() for job in (stage.job(), stage.base_job())]
    results = iter(run_vllm(python, jobs))
    found = {}
    for name, stage in stages.items():
        first, again = next(results)["batches"]
        (base,) = next(results)["batches"]
        found[name] = Served(stage.models, *map(stage.by_model, (first, again, base)))
    return found


def largest_error(folder: Path, answers: Sequence[Answered]) -> float:
    """How far vLLM's log probabilities are from those of a model in transformers, in nats."""
    errors = []
    with loaded(folder, torch.float32) as model, torch.inference_mode():
        for prompt, answer in answers:
            ids = torch.tensor([[*prompt, *answer["tokens"]]])
            logprobs = model(ids).logits[0].log_softmax(-1)
            given = logprobs[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None])[:, 0]
            errors.append((given - torch.tensor(answer["logprobs"])).abs().max())
    return float(torch.stack(errors).max())


@pytest.mark.parametrize("kind", KINDS)
def test_who_asks_for_no_edit_gets_the_base(served: dict[str, Served], kind: str) -> None:
    """Bit for bit what the engine gives of the base, in the middle of requests for edits."""
    found = served[kind]
    assert largest_error(found.models[BASE], found.mixed[BASE]) < 1e-4
    for (_, carried), (_, itself) in zip(found.mixed[BASE], found.base[BASE], strict=True):
        assert carried["tokens"] == itself["tokens"]
        assert carried["logprobs"] == itself["logprobs"]


@pytest.mark.parametrize(("kind", "name"), EDITED)
def test_each_request_gets_its_edit(served: dict[str, Served], kind: str, name: str) -> None:
    """Against the merged splice, as near as the engine's own rounding lets it be."""
    found = served[kind]
    error = largest_error(found.models[name], found.mixed[name])
    effect = largest_error(found.models[BASE], found.mixed[name])
    print(kind, name, error, effect)  # noqa: T201
    assert error < 1e-4
    # The model without the edit is far away.
    assert effect > KINDS[kind].effect


@pytest.mark.parametrize(("kind", "name"), EDITED)
def test_the_edits_tell_in_what_is_written(served: dict[str, Served], kind: str, name: str) -> None:
    pairs = zip(served[kind].mixed[BASE], served[kind].mixed[name], strict=True)
    assert any(base["tokens"] != edited["tokens"] for (_, base), (_, edited) in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_prefixes_are_kept_apart(served: dict[str, Served], kind: str) -> None:
    for name, answers in served[kind].again.items():
        assert sum(answer["cached"] for _, answer in answers) > 0
        for (_, answer), (_, before) in zip(answers, served[kind].mixed[name], strict=True):
            assert answer["tokens"] == before["tokens"]
            assert answer["logprobs"] == pytest.approx(before["logprobs"], abs=1e-4)
