"""Engines in processes of their own, and the models and machine that benchmarks say they used."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from hubsplice.building.build import build
from hubsplice.recipe.reading import parse_recipe

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
SAE = ROOT / "examples/sae-smollm2-135m-l13"
VLLM_PYTHON = Path(os.environ.get("HUBSPLICE_VLLM_PYTHON", ROOT / ".venv-vllm/bin/python"))


@dataclass(frozen=True)
class Answer:
    """What came back: seconds on the clock, seconds on a core, and the samples of each prompt."""

    wall: float
    cpu: float
    tokens: list[list[list[int]]]


class EngineProcess:
    """A worker that has loaded one model; a context manager, which ends it."""

    def __init__(
        self, python: Path, kind: str, options: dict[str, Any], *, threads: int, log: Path
    ) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_NO_USAGE_STATS": "1",
            "TORCHDYNAMO_DISABLE": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(ROOT),
        }
        if kind == "vllm":
            # The project's modules are for another environment.
            environment.pop("PYTHONPATH")
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [python, ROOT / "benchmarks/worker.py", kind, json.dumps(options)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        started = self._read()
        self.version: str = started["version"]
        self.adapter_bytes: int = started["adapter_bytes"]

    def ask(
        self,
        prompts: list[list[int]],
        new_tokens: int,
        *,
        samples: int = 1,
        temperature: float = 0.0,
        stop: Sequence[int] = (),
        hook: str | None = None,
        adapters: Sequence[Path | None] | None = None,
    ) -> Answer:
        request = {
            "prompts": prompts,
            "new_tokens": new_tokens,
            "samples": samples,
            "temperature": temperature,
            "stop": list(stop),
            "hook": hook,
            "adapters": adapters and [None if a is None else str(a) for a in adapters],
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Answer(**self._read())

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the engine failed:\n{self._log.read_text()[-3000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start_vllm(
    python: Path,
    folder: Path,
    *,
    dtype: str,
    max_num_seqs: int,
    length: int,
    threads: int,
    log: Path,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> EngineProcess:
    """vLLM with a model, for sequences of up to `length` tokens; no prompt is cached.

    `more` are further arguments of `vllm.LLM`.
    """
    block = 32
    options = {
        "model": str(folder),
        "llm": {
            "dtype": dtype,
            "enforce_eager": True,
            "skip_tokenizer_init": True,
            "enable_prefix_caching": False,
            "max_model_len": length,
            "max_num_seqs": max_num_seqs,
            "max_num_batched_tokens": 1024,
            # No larger than is needed: several engines share the memory.
            "block_size": block,
            "num_gpu_blocks_override": max_num_seqs * (length // block + 1),
            **more,
        },
    }
    return EngineProcess(python, "vllm", options, threads=threads, log=log)


def start_transformers(
    folder: Path, hooks: dict[str, Path], *, dtype: str, threads: int, log: Path
) -> EngineProcess:
    """transformers with a base, which can be hooked with the edits of spliced models."""
    named = {name: str(spliced) for name, spliced in hooks.items()}
    options = {"model": str(folder), "dtype": dtype, "hooks": named}
    return EngineProcess(Path(sys.executable), "transformers", options, threads=threads, log=log)


def splice(base: Path, splices: str, output: Path) -> Path:
    """Build splices, the YAML of a recipe's list, into `output`."""
    text = f"base_model: {base}\nsplices:\n{splices}calibration: {{tokens: 4000}}\n"
    build(
        parse_recipe(text, folder=output.parent),
        output=output,
        require_fidelity=None,
        measure=False,
        hard_link=False,
        progress=lambda _what, _done, _total: None,
    )
    print(f"built {output.name}", file=sys.stderr, flush=True)
    return output


def machine() -> str:
    """The processor, as the operating system calls it, its cores, and how busy they are."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.is_file() else ())
        if line.startswith("model name")
    ]
    processor = names[0] if names else platform.machine()
    return (
        f"{processor}, {os.cpu_count()} cores, load average {os.getloadavg()[2]:.0f} "
        "with the benchmark"
    )
