"""Run token prompts through vLLM: jobs come in by name, and results go out as files.

This file is run by the interpreter of the environment that vLLM is installed in, whose pinned
libraries need not be hubsplice's: it imports nothing but the standard library and vLLM.

Each line of the input is a JSON list of two paths, JOB and RESULT. JOB is a JSON file with one
model:

    {"model": folder, "options": {arguments of vllm.LLM},
     "batches": [[{"prompt": [token ids], "new_tokens": n, "prompt_logprobs": true}, ...], ...]}

The requests of a batch are given to vLLM together, batches one after another. A request may also
have these:

    "adapter": the folder of a LoRA adapter
    "ends": tokens that end the answer; without them nothing does, and it is greedy
    "watched": tokens whose probability as the answer's first is wanted
    "until": texts that end the answer, which then comes back as a text
    "sampling": {more arguments of vllm.SamplingParams}

RESULT is the version of vLLM, the kind of its device, and for every request the natural logarithms
of the probabilities that it gave to the tokens, without any sampling parameter applied:

    {"version": "...", "device": "cpu",
     "batches": [[{"prompt": [from the second token on], "greedy": [whether each is the likeliest],
                   "tokens": [ids], "logprobs": [of those], "ended": false, "watched": [...],
                   "text": "...", "cached": prompt tokens that were not read again}, ...], ...]}

A model stays loaded until a job names another one. The end of the input ends the process.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

# One process is enough, and is gone when this one is.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
# On a CPU vLLM takes 4 GiB for its cache unless told otherwise; prompts here are short.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


class Runner:
    """One model at a time."""

    def __init__(self) -> None:
        self._llm: Any = None
        self._loaded: Any = None

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Load the job's model, if it isn't loaded, and run its batches."""
        import vllm
        from vllm.platforms import current_platform

        wanted = [job["model"], job["options"]]
        if self._loaded != wanted:
            self.close()
            self._llm = vllm.LLM(model=job["model"], **job["options"])
            self._loaded = wanted
        return {
            "version": vllm.__version__,
            "device": current_platform.device_type,
            "batches": [_generate(self._llm, batch) for batch in job["batches"]],
        }

    def close(self) -> None:
        """Let the model go: the next one has the memory to itself."""
        if self._llm is None:
            return
        self._llm = self._loaded = None
        gc.collect()
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()


def main() -> None:
    """Run jobs until there are no more."""
    runner = Runner()
    for line in sys.stdin:
        given, made = map(Path, json.loads(line))
        result = runner.run(json.loads(given.read_text(encoding="utf-8")))
        # Whoever waits for the file finds it whole.
        whole = made.with_suffix(".part")
        whole.write_text(json.dumps(result), encoding="utf-8")
        whole.replace(made)
    runner.close()


def _generate(llm: Any, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    outputs = llm.generate(
        [{"prompt_token_ids": request["prompt"]} for request in requests],
        [_parameters(request) for request in requests],
        use_tqdm=False,
        lora_request=_adapters([request.get("adapter") for request in requests]),
    )
    return [_result(*one) for one in zip(requests, outputs, strict=True)]


def _parameters(request: dict[str, Any]) -> Any:
    from vllm import SamplingParams

    until, watched = request.get("until"), request.get("watched")
    return SamplingParams(
        **{
            "temperature": 0,
            "max_tokens": request["new_tokens"],
            "ignore_eos": True,
            "stop_token_ids": request.get("ends"),
            "stop": until,
            "detokenize": until is not None,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "logprobs": None if watched else 0,
            "logprob_token_ids": watched or None,
            "prompt_logprobs": 0 if request["prompt_logprobs"] else None,
            **request.get("sampling", {}),
        }
    )


def _adapters(folders: list[str | None]) -> list[Any] | None:
    """What vLLM asks for of each request; None where none has an adapter."""
    if not any(folders):
        return None
    from vllm.lora.request import LoRARequest

    # Numbers tell adapters apart, for as long as the model is loaded.
    number = {folder: i for i, folder in enumerate(sorted({f for f in folders if f}), start=1)}
    return [LoRARequest(f, number[f], f) if f else None for f in folders]


def _result(request: dict[str, Any], output: Any) -> dict[str, Any]:
    (completion,) = output.outputs
    prompt = []
    if output.prompt_logprobs is not None:
        given = zip(output.prompt_token_ids, output.prompt_logprobs, strict=True)
        # The first token has nothing before it, and so no probability.
        prompt = [entry[token] for token, entry in given if entry is not None]
    tokens = list(completion.token_ids)
    chosen = zip(tokens, completion.logprobs, strict=True)
    first = completion.logprobs[0] if completion.logprobs else {}
    return {
        "prompt": [found.logprob for found in prompt],
        "greedy": [found.rank == 1 for found in prompt],
        "tokens": tokens,
        "logprobs": [entry[token].logprob for token, entry in chosen],
        "ended": completion.finish_reason == "stop",
        "watched": [first[token].logprob for token in request.get("watched") or ()],
        "text": completion.text,
        "cached": output.num_cached_tokens or 0,
    }


if __name__ == "__main__":
    main()
