"""Run token prompts through vLLM: `python vllm_runner.py JOBS RESULTS`, both of them JSON files.

This file is run by the interpreter of the environment that vLLM is installed in, whose pinned
libraries need not be hubsplice's: it imports nothing but the standard library and vLLM.

JOBS is a list of jobs, each with one model:

    {"model": folder, "options": {arguments of vllm.LLM},
     "batches": [[{"prompt": [token ids], "new_tokens": n, "prompt_logprobs": true}, ...], ...]}

A request may name a LoRA adapter's folder as `"adapter"`. The requests of a batch are given to vLLM
together, batches one after another. RESULTS is, job by job, the version of vLLM, the kind of its
device, and for every request the natural logarithms of the probabilities that it gave to the
tokens, without any sampling parameter applied:

    {"version": "...", "device": "cpu",
     "batches": [[{"prompt": [from the second token on], "tokens": [ids], "logprobs": [of those],
                   "cached": prompt tokens that were not read again}, ...], ...]}
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


def main(jobs: Path, results: Path) -> None:
    """Run every job of a file, and write their results to another."""
    found = [run(job) for job in json.loads(jobs.read_text(encoding="utf-8"))]
    results.write_text(json.dumps(found), encoding="utf-8")


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Load one model, and run its batches."""
    import vllm
    from vllm.platforms import current_platform

    llm = vllm.LLM(model=job["model"], **job["options"])
    try:
        return {
            "version": vllm.__version__,
            "device": current_platform.device_type,
            "batches": [_generate(llm, batch) for batch in job["batches"]],
        }
    finally:
        # The next job's model has the memory to itself.
        del llm
        gc.collect()
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()


def _generate(llm: Any, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from vllm import SamplingParams

    outputs = llm.generate(
        [{"prompt_token_ids": request["prompt"]} for request in requests],
        [
            SamplingParams(
                temperature=0,
                max_tokens=request["new_tokens"],
                ignore_eos=True,
                detokenize=False,
                logprobs=0,
                prompt_logprobs=0 if request["prompt_logprobs"] else None,
            )
            for request in requests
        ],
        use_tqdm=False,
        lora_request=_adapters([request.get("adapter") for request in requests]),
    )
    return [_result(output) for output in outputs]


def _adapters(folders: list[str | None]) -> list[Any] | None:
    """What vLLM asks for of each request; None where none has an adapter."""
    if not any(folders):
        return None
    from vllm.lora.request import LoRARequest

    # Numbers tell adapters apart, for as long as the model is loaded.
    number = {folder: i for i, folder in enumerate(sorted({f for f in folders if f}), start=1)}
    return [LoRARequest(f, number[f], f) if f else None for f in folders]


def _result(output: Any) -> dict[str, Any]:
    (completion,) = output.outputs
    prompt = []
    if output.prompt_logprobs is not None:
        given = zip(output.prompt_token_ids, output.prompt_logprobs, strict=True)
        # The first token has nothing before it, and so no probability.
        prompt = [entry[token].logprob for token, entry in given if entry is not None]
    tokens = list(completion.token_ids)
    chosen = zip(tokens, completion.logprobs, strict=True)
    return {
        "prompt": prompt,
        "tokens": tokens,
        "logprobs": [entry[token].logprob for token, entry in chosen],
        "cached": output.num_cached_tokens or 0,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
