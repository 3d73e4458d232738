"""A model that vLLM runs in a process of its own, as lm-evaluation-harness takes it.

The harness has a class for vLLM, which needs both in one environment. vLLM pins its libraries, so
it has an environment of its own, and this class hands it tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    has_bos_prefix,
    maybe_truncate,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from hubsplice.checkpoint.base import read_config
from hubsplice.checkpoint.companions import CONFIG
from hubsplice.explore.vllm_answers import EAGER, Vllm
from hubsplice.streams.vllm import VllmProcess
from hubsplice.text.ends import end_tokens
from hubsplice.text.tokenizer import load_tokenizer

_LONGEST = 2048
"""Of a model whose configuration doesn't say: what the harness takes for transformers."""

_NOT_OF_SAMPLING = ("do_sample", "until", "max_gen_toks")


class VllmModel(TemplateLM):  # type: ignore[misc]  # lm_eval comes without types
    """Log-likelihoods and answers of one model; `close` ends its process."""

    def __init__(self, folder: Path, dtype: str, vllm: Vllm) -> None:
        """Name the model's folder, its precision and what runs it."""
        super().__init__()
        self.tokenizer = load_tokenizer(folder)
        self.engine: str | None = None
        self._ends = sorted(end_tokens(self.tokenizer, folder))
        self._folder, self._process = folder, VllmProcess(vllm.python)
        stated = read_config(folder / CONFIG).get("max_position_embeddings")
        longest = stated if isinstance(stated, int) else _LONGEST
        self._longest = int(vllm.options.get("max_model_len", longest))
        self._options = {
            "dtype": dtype, **EAGER, "max_model_len": self._longest, **vllm.options
        }  # fmt: skip

    def close(self) -> None:
        """End the process."""
        self._process.close()

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        found: int = self.tokenizer.eos_token_id
        return found

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context begins with."""
        found: int | None = self.tokenizer.bos_token_id
        return self.eot_token_id if found is None else found

    @property
    def tokenizer_name(self) -> str:
        """What the harness's own files are named after."""
        return self._folder.name

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as one text."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """A text as tokens; a chat template may have put the first special one in front already."""
        if add_special_tokens is None:
            first = self.tokenizer.decode([self.prefix_token_id])
            add_special_tokens = not has_bos_prefix(string, first)
        ids: list[int] = self.tokenizer(string, add_special_tokens=add_special_tokens).input_ids
        return ids

    def loglikelihood_rolling(self, requests: list[Instance], **_: Any) -> list[float]:
        """The log-likelihood of each text as a whole, in windows that don't overlap."""
        windows = [
            [
                ((None, None), *make_disjoint_window(pair))
                for pair in get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    # One for the context, and one that vLLM has to generate.
                    max_seq_len=self._longest - 2,
                    context_len=1,
                )
            ]
            for request in requests
        ]
        found = iter(self._loglikelihood_tokens([one for text in windows for one in text]))
        return [sum(next(found)[0] for _ in text) for text in windows]

    def generate_until(self, requests: list[Instance], **_: Any) -> list[str]:
        """Answers, each up to one of the texts that end it."""
        asked, stops = [], []
        for context, given in (request.args for request in requests):
            settings = normalize_gen_kwargs(given)
            until = [*filter(None, settings["until"])]
            ids, most = maybe_truncate(
                self.tok_encode(context),
                max_gen_toks=int(settings["max_gen_toks"]),
                max_model_len=self._longest,
                verbose=False,
            )
            stops.append(until)
            asked.append(
                {
                    "prompt": ids,
                    "new_tokens": most,
                    "prompt_logprobs": False,
                    "ends": self._ends,
                    "until": until,
                    "sampling": {
                        "skip_special_tokens": True,
                        **{k: v for k, v in settings.items() if k not in _NOT_OF_SAMPLING},
                    },
                }
            )
        return [
            postprocess_generated_text(answer["text"], until, None)
            for answer, until in zip(self._run(asked), stops, strict=True)
        ]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        asked = [
            {
                "prompt": (context + continuation)[-(self._longest - 1) :],
                "new_tokens": 1,
                "prompt_logprobs": True,
            }
            for _, context, continuation in requests
        ]
        lengths = [len(continuation) for _, _, continuation in requests]
        return [
            (sum(_last(answer["prompt"], length)), all(_last(answer["greedy"], length)))
            for answer, length in zip(self._run(asked), lengths, strict=True)
        ]

    def _run(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not requests:
            return []
        job = {"model": str(self._folder), "options": self._options, "batches": [requests]}
        found = self._process.run(job)
        self.engine = f"vLLM {found['version']}"
        answers: list[dict[str, Any]] = found["batches"][0]
        return answers


def _last(values: list[Any], number: int) -> list[Any]:
    """As many values from the end, none for zero, and all where there are fewer."""
    return values[max(0, len(values) - number) :]
