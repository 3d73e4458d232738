"""A carrier, adapters for it, and each of them merged, as an engine is asked for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubsplice.adapters.carrier import Carrier
from hubsplice.building.adapter import build_adapter
from hubsplice.building.merge import merge
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.families.engines import EngineKey
from hubsplice.recipe.reading import parse_recipe
from hubsplice.serving.adapters import adapter_options, find_adapter
from hubsplice.verifying.engines import Prompt
from tests.adapters.conftest import carry
from tests.building.conftest import quiet
from tests.serving.conftest import NEW_TOKENS, SAE, TEXT

BASE = "base"
Asked = tuple[str, Prompt]
Answered = tuple[Prompt, dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """A base and edits of it.

    Attributes:
        layer: behind which the edits are.
        splices: by what the tests call them, the rest of a splice in a recipe.
        effect: by how many nats, at least, an edit changes the log probability of some token.
    """

    layer: int
    splices: dict[str, str]
    effect: float


AMPLIFIED = {
    "amplified": "sae: {path: jumprelu}\n    edits: [{feature: 3, kind: scale, factor: 4}, "
    "{kind: steer, vector: {path: v.safetensors}, strength: 3}]",
}
KINDS = {
    "SmolLM2": Kind(
        13,
        {
            "amplified": f"sae: {{path: {SAE}}}\n    edits: [{{feature: 0, kind: clamp, to: 5.6}}, "
            "{feature: 1, kind: scale, factor: -2}]",
            "jumps": f"sae: {{path: {SAE}}}\n    edits: [{{feature: 1, kind: gated_steer, "
            "strength: 0.4 x norm}, {feature: 2, kind: clamp, to: 20, when: active}]",
        },
        effect=1.0,
    ),
    # Its MLP has no biases: squares hold the constant.
    "qwen3": Kind(1, AMPLIFIED, effect=0.05),
    # Norms stand behind the blocks: fixed ones, which suit every edit.
    "gemma2": Kind(1, AMPLIFIED, effect=0.05),
    "olmo2": Kind(1, AMPLIFIED, effect=0.05),
}


@dataclass(frozen=True)
class Stage:
    """What one engine serves.

    Attributes:
        carrier: the carrier.
        adapters: for it, by name.
        models: what answers in transformers, by name: the base, and each adapter merged.
        asked: every prompt by every model, the models in turn.
    """

    carrier: Carrier
    adapters: dict[str, Path]
    models: dict[str, Path]
    asked: list[Asked]

    def job(self) -> dict[str, Any]:
        """All of them in one batch, and that once more."""
        manifest = read_manifest(self.carrier.folder / MANIFEST)
        adapters = [find_adapter(folder, manifest) for folder in self.adapters.values()]
        words = adapter_options(manifest, adapters, EngineKey.VLLM, None)
        modules = words[words.index("--lora-target-modules") + 1 : words.index("--lora-modules")]
        options = {
            "enable_prefix_caching": True,
            "block_size": 32,
            "enable_lora": True,
            "max_loras": int(words[words.index("--max-loras") + 1]),
            "max_lora_rank": int(words[words.index("--max-lora-rank") + 1]),
            "lora_target_modules": list(modules),
        }
        return self._job(self.carrier.folder, options, self.adapters, times=2)

    def base_job(self) -> dict[str, Any]:
        """The base, asked the same prompts in the same order."""
        return self._job(self.models[BASE], {"enable_prefix_caching": False}, {}, times=1)

    def _job(
        self, model: Path, options: dict[str, Any], adapters: dict[str, Path], *, times: int
    ) -> dict[str, Any]:
        batch = [
            {
                "prompt": list(prompt),
                "new_tokens": NEW_TOKENS,
                # Beside LoRA, vLLM on a CPU fails at the log probabilities of prompts.
                "prompt_logprobs": False,
                "adapter": str(adapters[name]) if name in adapters else None,
            }
            for name, prompt in self.asked
        ]
        shared = {
            "dtype": "float32",
            "enforce_eager": True,
            "skip_tokenizer_init": True,
            "max_model_len": 128,
            "max_num_batched_tokens": 128,
            "max_num_seqs": 12,
        }
        return {"model": str(model), "options": shared | options, "batches": [batch] * times}

    def by_model(self, answers: list[dict[str, Any]]) -> dict[str, list[Answered]]:
        """What was answered to each prompt, by the model that was asked."""
        found: dict[str, list[Answered]] = {name: [] for name in self.models}
        for (name, prompt), answer in zip(self.asked, answers, strict=True):
            found[name].append((prompt, answer))
        return found


def build(kind: Kind, base: Path, prompts: Sequence[Prompt], recipes: Path, folder: Path) -> Stage:
    """A carrier, an adapter for each edit, and each of them merged."""
    carrier = Carrier.open(carry(base, folder / "carrier", kind.layer))
    adapters, models = {}, {BASE: base}
    for name, splice in kind.splices.items():
        recipe = f"base_model: {base}\ndtype: float32\nsplices:\n  - {splice}\n{TEXT}"
        adapters[name], models[name] = folder / name, folder / f"{name}-merged"
        build_adapter(
            parse_recipe(recipe, folder=recipes),
            carrier,
            output=adapters[name],
            require_fidelity=None,
            measure=False,
            progress=quiet,
        )
        merge(carrier, adapters[name], output=models[name], hard_link=True, progress=quiet)
    asked = [(name, prompt) for prompt in prompts for name in models]
    return Stage(carrier, adapters, models, asked)
