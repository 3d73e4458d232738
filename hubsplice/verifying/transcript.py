"""What an engine made of a prompt, and what a model in this process makes of the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hubsplice.streams.model import Model

_LOGITS_AT_ONCE = 2**25


@dataclass(frozen=True, eq=False)
class Transcript:
    """A prompt and its greedy continuation, with the probabilities that an engine gave to them.

    Attributes:
        prompt: token ids, two or more.
        tokens: the ids that the engine generated.
        logprobs: of every token but the prompt's first, in nats, shape
            [len(prompt) + len(tokens) - 1], float64.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: Tensor

    @staticmethod
    def of_answers(
        prompts: Sequence[tuple[int, ...]], answers: Sequence[Mapping[str, Any]]
    ) -> list[Transcript]:
        """A transcript for each prompt, of the answers that an engine's runner wrote as JSON."""
        return [
            Transcript(
                prompt,
                tuple(answer["tokens"]),
                torch.tensor([*answer["prompt"], *answer["logprobs"]], dtype=torch.float64),
            )
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    @property
    def ids(self) -> Tensor:
        """Prompt and continuation, shape [1, length]."""
        return torch.tensor([[*self.prompt, *self.tokens]])

    @property
    def generated(self) -> Tensor:
        """Which of `logprobs` are of generated tokens, same shape."""
        places = torch.arange(len(self.logprobs))
        return places >= len(self.prompt) - 1


@dataclass(frozen=True, eq=False)
class Scores:
    """What one model thinks of the tokens of all transcripts, one after another.

    Attributes:
        logprobs: of the actual tokens, shape [tokens], float64.
        best: the log probability of the likeliest token at the same place, same shape.
        choices: that token's id, same shape.
    """

    logprobs: Tensor
    best: Tensor
    choices: Tensor


def score(
    model: Model, transcripts: Sequence[Transcript], progress: Callable[[int, int], None]
) -> Scores:
    """Let a model read every transcript by itself, in one pass and without a cache.

    Args:
        model: the model; hooks that are on it take effect.
        transcripts: what to read.
        progress: told how many are read, and how many there are.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.inference_mode():
        for number, transcript in enumerate(transcripts):
            progress(number, len(transcripts))
            ids = transcript.ids.to(model.device)
            logits = model(ids, use_cache=False).logits[0, :-1]
            step = max(1, _LOGITS_AT_ONCE // logits.shape[-1])
            for start in range(0, len(logits), step):
                logprobs = logits[start : start + step].double().log_softmax(dim=-1)
                actual = ids[0, 1:][start : start + step, None]
                best, choices = logprobs.max(dim=-1)
                parts.append((logprobs.gather(1, actual)[:, 0].cpu(), best.cpu(), choices.cpu()))
    progress(len(transcripts), len(transcripts))
    logprobs, best, choices = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Scores(logprobs, best, choices)
