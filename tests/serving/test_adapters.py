"""A real vLLM serves a base and edits of it from one carrier, in one batch."""

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
from tests.serving.carried import BASE, KINDS, Answered, Kind, build
from tests.serving.conftest import ABOUT_COMPUTERS_AND_FOOD, MEAN
from tests.serving.families import SERVED
from tests.tiny_tokenizer import byte_tokenizer

pytestmark = pytest.mark.serving


@dataclass(frozen=True)
class Served:
    """What vLLM answered, by the model that answers in transformers.

    `mixed` is of all models in one batch, `again` of the same batch once more, `base` of the base
    itself.
    """

    kind: Kind
    models: dict[str, Path]
    mixed: dict[str, list[Answered]]
    again: dict[str, list[Answered]]
    base: dict[str, list[Answered]]


@pytest.fixture(scope="module", params=KINDS)
def served(
    request: pytest.FixtureRequest,
    python: Path,
    workshop: Workshop,
    tmp_path_factory: pytest.TempPathFactory,
) -> Served:
    name, folder = request.param, tmp_path_factory.mktemp("adapters")
    if name == "SmolLM2":
        base = request.getfixturevalue("smollm2")
        tokenizer = AutoTokenizer.from_pretrained(base)
        prompts = tuple(tuple(tokenizer(text).input_ids) for text in ABOUT_COMPUTERS_AND_FOOD)
    else:
        variant = next(served.variant for served in SERVED if served.variant.family == name)
        base = save_tiny(variant, folder / "base", torch.float32, mean=MEAN)
        byte_tokenizer().save_pretrained(base)
        prompts = builtin_prompts(AutoTokenizer.from_pretrained(base))
    stage = build(KINDS[name], base, prompts, workshop.folder, folder)
    carried, alone = run_vllm(python, [stage.job(), stage.base_job()])
    batches = (*carried["batches"], *alone["batches"])
    return Served(KINDS[name], stage.models, *map(stage.by_model, batches))


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


def test_who_asks_for_no_edit_gets_the_base(served: Served) -> None:
    """Bit for bit what the engine gives of the base, in the middle of requests for edits."""
    assert largest_error(served.models[BASE], served.mixed[BASE]) < 1e-4
    for (_, carried), (_, itself) in zip(served.mixed[BASE], served.base[BASE], strict=True):
        assert carried["tokens"] == itself["tokens"]
        assert carried["logprobs"] == itself["logprobs"]


def test_each_request_gets_its_edit(served: Served) -> None:
    """Against the merged splice, as near as the engine's own rounding lets it be."""
    for name in served.kind.splices:
        error = largest_error(served.models[name], served.mixed[name])
        effect = largest_error(served.models[BASE], served.mixed[name])
        print(name, error, effect)  # noqa: T201
        assert error < 1e-4
        # The model without the edit is far away.
        assert effect > served.kind.effect


def test_the_edits_tell_in_what_is_written(served: Served) -> None:
    for name in served.kind.splices:
        pairs = zip(served.mixed[BASE], served.mixed[name], strict=True)
        assert any(base["tokens"] != edited["tokens"] for (_, base), (_, edited) in pairs)


def test_cached_prefixes_are_kept_apart(served: Served) -> None:
    for name, answers in served.again.items():
        assert sum(answer["cached"] for _, answer in answers) > 0
        for (_, answer), (_, before) in zip(answers, served.mixed[name], strict=True):
            assert answer["tokens"] == before["tokens"]
            assert answer["logprobs"] == pytest.approx(before["logprobs"], abs=1e-4)
