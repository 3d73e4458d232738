"""An engine with one model, asked over pipes: `python worker.py vllm|transformers OPTIONS`.

Run by the interpreter of the engine's environment, so nothing is imported at the top but the
standard library. OPTIONS is JSON: `model`, a folder; for vLLM `llm`, arguments of `vllm.LLM`; for
transformers `dtype` and `hooks`, folders of spliced models by name whose edits the base can be
hooked with. A line of JSON on stdin is a request:

    {"prompts": [[token ids], ...], "new_tokens": n, "samples": of each prompt,
     "temperature": 0 for greedy, "stop": ids of tokens that end a sample,
     "hook": name or null, "adapters": null, or a LoRA adapter's folder or null for each prompt}

and a line on stdout its answer: `wall` and `cpu`, the seconds on the clock and those of this
process on a core; `tokens`, for each prompt its samples. The first line says the engine's
`version`, and the bytes that it keeps for LoRA adapters (`adapter_bytes`), for all places together.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol


class Engine(Protocol):
    """What generates."""

    version: str
    adapter_bytes: int

    def generate(self, request: dict[str, Any]) -> list[list[list[int]]]:
        """The samples of every prompt of a request, as token ids."""


class Vllm:
    """vLLM's offline engine, in this process."""

    def __init__(self, options: dict[str, Any]) -> None:
        import vllm

        self.version = vllm.__version__
        self._llm = vllm.LLM(model=options["model"], **options["llm"])
        (self.adapter_bytes,) = self._llm.apply_model(_adapter_bytes)
        self._numbers: dict[str, int] = {}

    def generate(self, request: dict[str, Any]) -> list[list[list[int]]]:
        from vllm import SamplingParams

        parameters = SamplingParams(
            n=request["samples"],
            temperature=request["temperature"],
            max_tokens=request["new_tokens"],
            stop_token_ids=request["stop"],
            ignore_eos=True,
            detokenize=False,
        )
        prompts = [{"prompt_token_ids": prompt} for prompt in request["prompts"]]
        outputs = self._llm.generate(
            prompts, parameters, use_tqdm=False, lora_request=self._adapters(request["adapters"])
        )
        return [[list(sample.token_ids) for sample in output.outputs] for output in outputs]

    def _adapters(self, folders: list[str | None] | None) -> list[Any] | None:
        """What vLLM asks for of each prompt; None where none has an adapter."""
        if not folders or not any(folders):
            return None
        from vllm.lora.request import LoRARequest

        # One number for each folder, as long as this process lives.
        for folder in folders:
            if folder is not None:
                self._numbers.setdefault(folder, len(self._numbers) + 1)
        return [None if f is None else LoRARequest(f, self._numbers[f], f) for f in folders]


def _adapter_bytes(model: Any) -> int:
    """What the places for adapters take in vLLM's wrapped modules."""
    stacked = (
        tensor
        for module in model.modules()
        for name in ("lora_a_stacked", "lora_b_stacked")
        for tensor in getattr(module, name, ())
    )
    return sum(tensor.numel() * tensor.element_size() for tensor in stacked)


class Transformers:
    """`generate` of transformers with its cache, on prompts of one length as one batch, greedily
    and without a stop."""

    def __init__(self, options: dict[str, Any]) -> None:
        import torch
        import transformers

        from hubsplice.intervention.saved import INTERVENTION, load_intervention

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self.version = transformers.__version__
        self.adapter_bytes = 0
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            options["model"], dtype=getattr(torch, options["dtype"])
        ).eval()
        self._hooks = {
            name: load_intervention(Path(folder) / INTERVENTION)
            for name, folder in options["hooks"].items()
        }

    def generate(self, request: dict[str, Any]) -> list[list[list[int]]]:
        import torch

        from hubsplice.streams.model import hooked

        assert not request["stop"]
        assert request["samples"] == 1
        assert not request["temperature"]
        ids = torch.tensor(request["prompts"])
        hook = request["hook"]
        edited = nullcontext() if hook is None else hooked(self._model, self._hooks[hook])
        with torch.inference_mode(), edited:
            found = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=request["new_tokens"],
                max_new_tokens=request["new_tokens"],
            )
        return [[row] for row in found[:, ids.shape[1] :].tolist()]


ENGINES: dict[str, Callable[[dict[str, Any]], Engine]] = {
    "vllm": Vllm,
    "transformers": Transformers,
}


def main() -> None:
    # Engines print to stdout; the answers keep it to themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    engine = ENGINES[sys.argv[1]](json.loads(sys.argv[2]))
    started = {"version": engine.version, "adapter_bytes": engine.adapter_bytes}
    print(json.dumps(started), file=answers, flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        tokens = engine.generate(json.loads(line))
        answer = {
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "tokens": tokens,
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
