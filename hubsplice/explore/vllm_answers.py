"""Answers of a model that vLLM runs: the same as `generating` gives, from another engine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubsplice.checkpoint.views import model_view
from hubsplice.errors import RecipeError
from hubsplice.explore.generating import Generated, Sampling
from hubsplice.streams.vllm import VllmProcess

_MOST_WATCHED = 128
"""Tokens whose probability vLLM gives at once."""

EAGER = {"enforce_eager": True}
"""Without graphs, whose making takes minutes on a CPU; `--model-args` can say otherwise."""


@dataclass(frozen=True)
class Vllm:
    """Where vLLM is, and how it runs.

    Attributes:
        python: the interpreter of its environment.
        options: more arguments of `vllm.LLM`.
    """

    python: Path
    options: dict[str, Any] = field(default_factory=dict)


class VllmAnswers:
    """Answers of several models, one after the other in one process."""

    def __init__(self, process: VllmProcess, vllm: Vllm, dtype: str) -> None:
        """Name the process, and the precision that models run in."""
        self._process, self._vllm, self._dtype = process, vllm, dtype

    def generate(
        self,
        folder: Path,
        asked: Sequence[tuple[str, tuple[int, ...]]],
        watched: Sequence[Sequence[int]],
        *,
        sampling: Sampling,
        ends: frozenset[int],
    ) -> tuple[list[Generated], str]:
        """Continue every prompt.

        Args:
            folder: the model's.
            asked: prompts and their tokens. A prompt has the same random numbers with every model.
            watched: sets of tokens whose probability as the answer's first is wanted.
            sampling: how tokens are drawn.
            ends: tokens that end an answer.

        Returns:
            The answers, and the name and version of what gave them.

        Raises:
            RecipeError: more tokens are watched than vLLM takes.
            CheckpointError: vLLM failed.
            UnsupportedError: there is no vLLM.
        """
        every = sorted({token for one in watched for token in one})
        if len(every) > _MOST_WATCHED:
            raise RecipeError(
                f"--score: its words begin with {len(every)} tokens; vLLM gives the probability of "
                f"at most {_MOST_WATCHED}"
            )
        longest = max(len(ids) for _, ids in asked) + sampling.max_new_tokens
        options = {
            "dtype": self._dtype,
            **EAGER,
            "skip_tokenizer_init": True,
            "max_model_len": longest,
            **self._vllm.options,
        }
        requests = [
            {
                "prompt": list(ids),
                "new_tokens": sampling.max_new_tokens,
                "prompt_logprobs": False,
                "ends": sorted(ends),
                "watched": every,
                "sampling": _drawn(sampling, prompt),
            }
            for prompt, ids in asked
        ]
        with model_view(folder) as view:
            found = self._process.run(
                {"model": str(view), "options": options, "batches": [requests]}
            )
        answers = [_generated(answer, every, watched) for answer in found["batches"][0]]
        return answers, f"vLLM {found['version']}"


def _drawn(sampling: Sampling, prompt: str) -> dict[str, Any]:
    """Arguments of `vllm.SamplingParams`: a prompt's random numbers are its own."""
    if sampling.temperature == 0:
        return {}
    digest = hashlib.sha256(f"{sampling.seed} {prompt}".encode()).digest()
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": int.from_bytes(digest[:4], "big"),
    }


def _generated(
    answer: dict[str, Any], every: Sequence[int], watched: Sequence[Sequence[int]]
) -> Generated:
    probability = dict(zip(every, map(math.exp, answer["watched"]), strict=True))
    ids = tuple(answer["tokens"])
    return Generated(
        # vLLM gives the token that ended it too.
        ids[:-1] if answer["ended"] else ids,
        answer["ended"],
        tuple(sum(probability[token] for token in one) for one in watched),
    )
