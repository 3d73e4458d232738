"""Engines that serve a checkpoint: they read prompts and continue them greedily."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from hubsplice.checkpoint.views import model_view
from hubsplice.streams.model import Model, loaded
from hubsplice.streams.vllm import run_vllm
from hubsplice.verifying.transcript import Transcript

Prompt = tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """What an engine is asked to serve.

    Attributes:
        folder: the checkpoint.
        dtype: such as `bfloat16`.
        prompts: token ids of each; two or more.
        new_tokens: how many to generate after each; one or more.
    """

    folder: Path
    dtype: str
    prompts: Sequence[Prompt]
    new_tokens: int


@dataclass(frozen=True)
class ServedBy:
    """What answered.

    Attributes:
        version: of the engine.
        device: its kind, such as `cpu`; None where that is not known.
    """

    version: str
    device: str | None = None


class Engine(Protocol):
    """What serves a checkpoint."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def run(
        self, request: Request, progress: Callable[[int, int], None]
    ) -> tuple[list[Transcript], ServedBy]:
        """Read every prompt and continue it greedily, past any end-of-sequence token.

        Args:
            request: what to serve.
            progress: told how many prompts are done, and how many there are.

        Returns:
            A transcript for each prompt, and what answered.

        Raises:
            CheckpointError: the engine can't load the checkpoint, or fails.
            UnsupportedError: the engine is not there.
        """


@dataclass(frozen=True)
class TransformersEngine:
    """transformers in this process: one forward pass for a prompt, then one for each token."""

    name: str = "transformers"

    def run(
        self, request: Request, progress: Callable[[int, int], None]
    ) -> tuple[list[Transcript], ServedBy]:
        import transformers

        prompts, transcripts = request.prompts, []
        dtype = getattr(torch, request.dtype)
        with loaded(request.folder, dtype) as model, torch.inference_mode():
            for number, prompt in enumerate(prompts):
                progress(number, len(prompts))
                transcripts.append(_continue(model, prompt, request.new_tokens))
            device = model.device.type
        progress(len(prompts), len(prompts))
        return transcripts, ServedBy(str(transformers.__version__), device)


def _continue(model: Model, prompt: Prompt, new_tokens: int) -> Transcript:
    ids = torch.tensor([prompt], device=model.device)
    output = model(ids, use_cache=True)
    logprobs = output.logits[0].double().log_softmax(dim=-1)
    found = [logprobs[:-1].gather(1, ids[0, 1:, None])[:, 0].cpu()]
    tokens: list[int] = []
    for step in range(new_tokens):
        best, choice = logprobs[-1].max(dim=-1)
        tokens.append(int(choice))
        found.append(best[None].cpu())
        if step + 1 < new_tokens:
            output = model(
                choice.view(1, 1), past_key_values=output.past_key_values, use_cache=True
            )
            logprobs = output.logits[0].double().log_softmax(dim=-1)
    return Transcript(prompt, tuple(tokens), torch.cat(found))


@dataclass(frozen=True)
class VllmEngine:
    """vLLM in a process, and if need be an environment, of its own.

    Attributes:
        python: the interpreter of the environment that vLLM is installed in.
        options: further arguments of `vllm.LLM`.
    """

    python: Path
    options: tuple[tuple[str, Any], ...] = ()
    name: str = "vLLM"

    def run(
        self, request: Request, progress: Callable[[int, int], None]
    ) -> tuple[list[Transcript], ServedBy]:
        prompts, new_tokens = request.prompts, request.new_tokens
        progress(0, len(prompts))
        options = {
            "dtype": request.dtype,
            "enforce_eager": True,
            "skip_tokenizer_init": True,
            "max_model_len": max(map(len, prompts)) + new_tokens,
            **dict(self.options),
        }
        requests = [
            {"prompt": list(prompt), "new_tokens": new_tokens, "prompt_logprobs": True}
            for prompt in prompts
        ]
        with model_view(request.folder) as view:
            job = {"model": str(view), "options": options, "batches": [requests]}
            (result,) = run_vllm(self.python, [job])
        progress(len(prompts), len(prompts))
        transcripts = Transcript.of_answers(prompts, result["batches"][0])
        return transcripts, ServedBy(result["version"], result.get("device"))
