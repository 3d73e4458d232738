"""Run token prompts through llama.cpp's server: `python llama_cpp_runner.py JOBS RESULTS`.

This file is run by the interpreter of the environment that xllamacpp, a prebuilt llama.cpp, is
installed in: it imports nothing but the standard library and xllamacpp. JOBS and RESULTS are JSON
files. JOBS is a list of jobs, each with one model:

    {"options": {those of llama-server, by name without dashes}, "threads": n, "top": n,
     "requests": [{"prompt": [token ids], "new_tokens": n}, ...]}

A job may name `"adapters"`, files of LoRA adapters that no request gets unless it asks. A request
may have `"fields"`, what it asks of the server beside that; its prompt is then read in one piece,
and nothing is said of it.

RESULTS is, job by job, the version of xllamacpp, and for every request the natural logarithms of
the probabilities that the model gave to the tokens, before any sampling parameter, and at every
place the likeliest tokens:

    {"version": "...",
     "answers": [{"prompt": [from the second token on], "tokens": [ids], "logprobs": [of those],
                  "likeliest": [[[id, logprob], ...], ...]}, ...]}

The server tells the probabilities of what it generates, not of what it reads. So it is made to
generate the prompt: each of its tokens is asked for after those before it, with a bias that leaves
no other choice and that the reported probabilities do not have in them.

What the server reports is a little too high, alike for all tokens of a place: it adds up the
probabilities of the whole vocabulary one by one in float32, and small ones are lost in the sum.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

_NO_OTHER_CHOICE = 1e6


def main(jobs: Path, results: Path) -> None:
    """Run every job of a file, and write their results to another."""
    found = [run(job) for job in json.loads(jobs.read_text(encoding="utf-8"))]
    results.write_text(json.dumps(found), encoding="utf-8")


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Load one model, and run its requests."""
    import xllamacpp

    options = job["options"]
    params = xllamacpp.CommonParams()
    params.model.path = options.pop("model")
    params.n_ctx = int(options.pop("ctx-size"))
    if (attention := options.pop("flash-attn", None)) is not None:
        kinds = xllamacpp.llama_flash_attn_type
        params.flash_attn_type = {"off": kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED}[attention]
    for name in ("cache_type_k", "cache_type_v"):
        if (kind := options.pop(name.replace("_", "-"), None)) is not None:
            setattr(params, name, {"f32": xllamacpp.ggml_type.GGML_TYPE_F32}[kind])
    if adapters := job.get("adapters"):
        # A request that names none gets all of them, by the scales that they are loaded with.
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in adapters]
    if options:
        raise ValueError(f"options that this runner does not know: {options}")
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["threads"]
    server = xllamacpp.Server(params)
    return {
        "version": version("xllamacpp"),
        "answers": [_answer(server, request, job["top"]) for request in job["requests"]],
    }


def _answer(server: Any, request: dict[str, Any], top: int) -> dict[str, Any]:
    prompt, count, fields = request["prompt"], request["new_tokens"], request.get("fields")
    if fields is not None:
        return _told([], _generate(server, prompt, count, top, fields))
    read = [
        _generate(
            server, prompt[:length], 1, top, {"logit_bias": [[prompt[length], _NO_OTHER_CHOICE]]}
        )[0]
        for length in range(1, len(prompt))
    ]
    if [token["id"] for token in read] != prompt[1:]:
        raise RuntimeError("the server did not generate the tokens that it was made to")
    return _told(read, _generate(server, prompt, count, top, {}))


def _told(read: list[dict[str, Any]], generated: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "prompt": [token["logprob"] for token in read],
        "tokens": [token["id"] for token in generated],
        "logprobs": [token["logprob"] for token in generated],
        "likeliest": [
            [[likely["id"], likely["logprob"]] for likely in token["top_logprobs"]]
            for token in (*read, *generated)
        ],
    }


def _generate(
    server: Any, prompt: list[int], count: int, top: int, fields: dict[str, Any]
) -> list[dict[str, Any]]:
    answer = server.handle_completions(
        {
            "prompt": prompt,
            "n_predict": count,
            "ignore_eos": True,
            "temperature": 0,
            "n_probs": top,
            **fields,
        }
    )
    found: list[dict[str, Any]] = answer["choices"][0]["logprobs"]["content"]
    if len(found) != count:
        raise RuntimeError(f"the server generated {len(found)} tokens in the place of {count}")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
