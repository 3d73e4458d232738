"""A real vLLM serves the base and two edits from one carrier, in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from hubsplice.adapters.carrier import Carrier
from hubsplice.building.adapter import build_adapter
from hubsplice.building.merge import merge
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.families.engines import EngineKey
from hubsplice.recipe.reading import parse_recipe
from hubsplice.serving.adapters import adapter_options, find_adapter
from hubsplice.streams.model import loaded
from hubsplice.streams.vllm import run_vllm
from tests.adapters.conftest import carry
from tests.building.conftest import quiet
from tests.serving.conftest import ABOUT_COMPUTERS_AND_FOOD, NEW_TOKENS, SAE, TEXT

pytestmark = pytest.mark.serving

EDITS = {
    "amplified": "{feature: 0, kind: clamp, to: 5.6}, {feature: 1, kind: scale, factor: -2}",
    "jumps": "{feature: 1, kind: gated_steer, strength: 0.4 x norm}, "
    "{feature: 2, kind: clamp, to: 20, when: active}",
}


@dataclass(frozen=True)
class Served:
    """What vLLM answered, by the model that answers in transformers: prompts and answers.

    `mixed` is of all models in one batch, `again` of the same batch once more.
    """

    models: dict[str, Path]
    mixed: dict[str, list[tuple[list[int], dict[str, Any]]]]
    again: dict[str, list[tuple[list[int], dict[str, Any]]]]


@pytest.fixture(scope="module")
def served(python: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("adapters")
    carrier = Carrier.open(carry(smollm2, folder / "carrier", 13))
    models = {"base": smollm2}
    for name, edits in EDITS.items():
        splices = f"\n  - sae: {{path: {SAE}}}\n    edits: [{edits}]\n"
        recipe = f"base_model: {smollm2}\ndtype: float32\nsplices:{splices}{TEXT}"
        build_adapter(
            parse_recipe(recipe, folder=folder),
            carrier,
            output=folder / name,
            require_fidelity=None,
            measure=False,
            progress=quiet,
        )
        merge(
            carrier,
            folder / name,
            output=folder / f"{name}-merged",
            hard_link=True,
            progress=quiet,
        )
        models[name] = folder / f"{name}-merged"
    manifest = read_manifest(carrier.folder / MANIFEST)
    adapters = [find_adapter(folder / name, manifest) for name in EDITS]
    options = adapter_options(manifest, adapters, EngineKey.VLLM, None)
    rank = int(options[options.index("--max-lora-rank") + 1])
    modules = options[options.index("--lora-target-modules") + 1 : options.index("--lora-modules")]
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    prompts = [tokenizer(text).input_ids for text in ABOUT_COMPUTERS_AND_FOOD]
    # Every prompt by every model, the models in turn.
    asked = [(name, prompt) for prompt in prompts for name in models]
    job = {
        "model": str(carrier.folder),
        "options": {
            "dtype": "float32",
            "enforce_eager": True,
            "skip_tokenizer_init": True,
            "max_model_len": 128,
            "max_num_batched_tokens": 128,
            "max_num_seqs": 12,
            "enable_prefix_caching": True,
            "block_size": 32,
            "enable_lora": True,
            "max_loras": int(options[options.index("--max-loras") + 1]),
            "max_lora_rank": rank,
            "lora_target_modules": list(modules),
        },
        "batches": [
            [
                {
                    "prompt": prompt,
                    "new_tokens": NEW_TOKENS,
                    # Beside LoRA, vLLM on a CPU fails at the log probabilities of prompts.
                    "prompt_logprobs": False,
                    "adapter": None if name == "base" else str(folder / name),
                }
                for name, prompt in asked
            ]
        ]
        * 2,
    }
    (result,) = run_vllm(python, [job])

    def by_model(
        answers: list[dict[str, Any]],
    ) -> dict[str, list[tuple[list[int], dict[str, Any]]]]:
        found: dict[str, list[tuple[list[int], dict[str, Any]]]] = {name: [] for name in models}
        for (name, prompt), answer in zip(asked, answers, strict=True):
            found[name].append((prompt, answer))
        return found

    first, again = result["batches"]
    return Served(models, by_model(first), by_model(again))


def largest_error(folder: Path, answers: Sequence[tuple[list[int], dict[str, Any]]]) -> float:
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
    assert largest_error(served.models["base"], served.mixed["base"]) < 1e-4


@pytest.mark.parametrize("name", EDITS)
def test_each_request_gets_its_edit(served: Served, name: str) -> None:
    """Against the merged splice, as near as the engine's own rounding lets it be."""
    assert largest_error(served.models[name], served.mixed[name]) < 1e-4
    # The model without the edit is far away.
    assert largest_error(served.models["base"], served.mixed[name]) > 1.0


def test_the_edits_tell_in_what_is_written(served: Served) -> None:
    for name in EDITS:
        pairs = zip(served.mixed["base"], served.mixed[name], strict=True)
        assert any(base["tokens"] != edited["tokens"] for (_, base), (_, edited) in pairs)


def test_cached_prefixes_are_kept_apart(served: Served) -> None:
    for name, answers in served.again.items():
        assert sum(answer["cached"] for _, answer in answers) > 0
        for (_, answer), (_, before) in zip(answers, served.mixed[name], strict=True):
            assert answer["tokens"] == before["tokens"]
            assert answer["logprobs"] == pytest.approx(before["logprobs"], abs=1e-4)
