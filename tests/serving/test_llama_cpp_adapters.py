"""llama.cpp serves a base and two edits from one carrier, from files that its converters make."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from hubsplice.streams.model import loaded
from hubsplice.verifying.engines import Prompt
from tests.serving.carried import BASE, KINDS, Stage, build
from tests.serving.conftest import ABOUT_COMPUTERS_AND_FOOD, NEW_TOKENS
from tests.serving.test_llama_cpp import TOP, LlamaCpp, convert, llama_cpp, run

__all__ = ["llama_cpp"]

pytestmark = pytest.mark.serving

# By how much float32 log odds may differ: what is steep multiplies differences.
EDITS = {"amplified": 1e-4, "jumps": 5e-4}


@dataclass(frozen=True)
class Served:
    """What llama.cpp answered to each prompt, by the model that answers in transformers.

    `alone` is without a cache. `cached` is of who asks for the base with the server's own caches,
    after somebody asked for an edit with the same prompt, by how.
    """

    stage: Stage
    alone: dict[str, list[dict[str, Any]]]
    cached: dict[str, dict[str, Any]]


def adapter_file(llama_cpp: LlamaCpp, adapter: Path, carrier: Path) -> Path:
    """What the converter makes of an adapter."""
    converter = llama_cpp.source / "convert_lora_to_gguf.py"
    if not converter.is_file():
        pytest.skip(f"HUBSPLICE_LLAMACPP_PYTHON: there is no {converter}")
    path = adapter.with_suffix(".gguf")
    result = subprocess.run(
        [sys.executable, converter, adapter, "--base", carrier, "--outfile", path],
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return path


@pytest.fixture(scope="module")
def served(llama_cpp: LlamaCpp, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("llama-cpp-adapters")
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    prompts = [tuple(tokenizer(text).input_ids) for text in ABOUT_COMPUTERS_AND_FOOD]
    stage = build(KINDS["SmolLM2"], smollm2, prompts, folder, folder)
    carrier = stage.carrier.folder
    file = convert(llama_cpp, carrier, "f32")
    adapters = [adapter_file(llama_cpp, path, carrier) for path in stage.adapters.values()]
    number = {name: i for i, name in enumerate(stage.adapters)}

    def request(name: str, prompt: Prompt, **fields: Any) -> dict[str, Any]:
        lora = [{"id": number.get(name, 0), "scale": float(name in number)}]
        return {
            "prompt": list(prompt),
            "new_tokens": NEW_TOKENS,
            "fields": {"lora": lora, **fields},
        }

    alone = [request(name, prompt, cache_prompt=False) for name, prompt in stage.asked]
    edited, base = (request(name, prompts[0]) for name in ("amplified", BASE))
    unnamed = base | {"fields": {}}
    # Where another prompt comes between, the first one moves to a second cache.
    cached = [edited, unnamed, edited, base, edited, request(BASE, prompts[1]), base]
    job = {
        "options": {"model": str(file.path), **file.options},
        "threads": torch.get_num_threads(),
        "top": TOP,
        "adapters": list(map(str, adapters)),
        "requests": [*alone, *cached],
    }
    (answers,) = run(llama_cpp, [job], folder)
    by_model: dict[str, list[dict[str, Any]]] = {name: [] for name in stage.models}
    for (name, _), answer in zip(stage.asked, answers, strict=False):
        by_model[name].append(answer)
    _, not_named, _, named, *_, moved = answers[len(alone) :]
    told = {"not named": not_named, "named": named, "moved": moved}
    return Served(stage, by_model, told)


def odds_error(served: Served, folder: Path, name: str) -> float:
    """How far the float32 log odds of the likeliest tokens are from a model's, at most."""
    prompts = [prompt for asked, prompt in served.stage.asked if asked == name]
    largest = 0.0
    with loaded(folder, torch.float32) as model, torch.inference_mode():
        for prompt, answer in zip(prompts, served.alone[name], strict=True):
            likeliest = torch.tensor(answer["likeliest"], dtype=torch.float64)
            ids = torch.tensor([[*prompt, *answer["tokens"]]])
            logits = model(ids).logits[0, len(prompt) - 1 : -1].double()
            theirs, ours = likeliest[..., 1], logits.gather(1, likeliest[..., 0].long())
            odds = (theirs - theirs[:, :1]) - (ours - ours[:, :1])
            largest = max(largest, float(odds.abs().max()))
    return largest


def test_who_asks_for_no_edit_gets_the_base(served: Served) -> None:
    assert odds_error(served, served.stage.models[BASE], BASE) < 1e-4


@pytest.mark.parametrize("name", EDITS)
def test_each_request_gets_its_edit(served: Served, name: str) -> None:
    error = odds_error(served, served.stage.models[name], name)
    effect = odds_error(served, served.stage.models[BASE], name)
    print(name, error, effect)  # noqa: T201
    assert error < EDITS[name]
    assert effect > 1.0


@pytest.mark.parametrize(
    ("asked", "safe"), [("not named", False), ("named", True), ("moved", False)]
)
def test_a_cached_prompt_keeps_the_edit_that_it_was_read_with(
    served: Served, asked: str, safe: bool
) -> None:
    """Why prompts must not be cached: who asks for the base after an edit gets neither."""
    answer, alone = served.cached[asked], served.alone[BASE][0]
    assert (answer["tokens"] == alone["tokens"]) == safe
    assert (answer["logprobs"] == pytest.approx(alone["logprobs"], abs=1e-3)) == safe
