"""Builds on a GPU against the same builds on the CPU: `make test-gpu`.

    make test-gpu PYTHON=python3 [SMOLLM2=FOLDER] [MINUTES=8]

Needs a CUDA card, a Python with hubsplice's dependencies, and nothing from a network: the models
have random weights. SmolLM2 is built where its folder is there. A random Llama of 8 billion
parameters (16 GB of disk, 40 GB of memory on the card) is built on the GPU alone, if time and
room are left. Every build is a process of its own. Prints a table of time, memory and figures,
where the time went, and exits with 1 where a figure of the GPU is not the CPU's.

It has not been run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

TINY: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
LLAMA_8B: dict[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
RESERVE = 20.0  # seconds for the table
ROOM_ON_CARD, ROOM_ON_DISK = 40e9, 34e9

# Sums in another order differ in the last digits: figures of bfloat16 by some per cent, and of
# float32, where the divergences are near zero, by a factor. A hook or a layer that is not applied
# is off by orders of magnitude.
TOLERANCE = {"bfloat16": 0.25, "float32": 3.0}


@dataclass(frozen=True)
class Model:
    """A base to build from, and how."""

    name: str
    folder: Path
    hidden_size: int
    layer: int
    tokens: int
    on_cpu: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smollm2", type=Path, default=ROOT / ".cache/smollm2-135m-instruct")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--any-device", action="store_true", help="also run where no GPU is")
    parser.add_argument("--one", nargs=2, metavar=("RECIPE", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(build_one(*map(Path, arguments.one))))
        return
    import torch

    if not torch.cuda.is_available() and not arguments.any_device:
        raise SystemExit("there is no CUDA card here, or this PyTorch is not built for one")
    deadline = time.monotonic() + 60 * arguments.minutes - RESERVE
    failed = False
    with tempfile.TemporaryDirectory() as name:
        for model in models(Path(name), arguments.smollm2):
            left = deadline - time.monotonic()
            if left <= 0:
                print(f"{model.name}: left out, for the time is up")
                continue
            failed |= not compared(model, Path(name), deadline)
    raise SystemExit(int(failed))


def models(folder: Path, smollm2: Path) -> Iterator[Model]:
    """The bases, written as they are asked for."""
    yield Model("tiny Llama", random_llama(folder / "tiny", TINY), 128, 3, tokens=4096, on_cpu=True)
    if (smollm2 / "config.json").is_file():
        yield Model("SmolLM2-135M-Instruct", smollm2, 576, 13, tokens=2048, on_cpu=True)
    else:
        print(f"SmolLM2-135M-Instruct: left out, for it is not in {smollm2}")
    import torch

    on_card = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    if on_card < ROOM_ON_CARD or shutil.disk_usage(folder).free < ROOM_ON_DISK:
        print("random Llama of 8 B: left out, for want of room on the card or the disk")
        return
    large = random_llama(folder / "large", LLAMA_8B)
    yield Model("random Llama of 8 B", large, 4096, 15, tokens=2048, on_cpu=False)


def random_llama(folder: Path, sizes: dict[str, Any]) -> Path:
    """Write a Llama of random bfloat16 weights, with a tokenizer that reads bytes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.tiny_tokenizer import byte_tokenizer

    more = {"tie_word_embeddings": False, "max_position_embeddings": 2048}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model("llama", **sizes, **more, **ids), dtype=torch.bfloat16
        )
    model.save_pretrained(folder, max_shard_size="2GB")
    byte_tokenizer().save_pretrained(folder)
    del model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return folder


def compared(model: Model, folder: Path, deadline: float) -> bool:
    """Build on the GPU and on the CPU, and print both; whether the figures are the same."""
    recipe = write_recipe(model, folder)
    gpu = run(recipe, folder / "out-gpu", deadline, cpu=False)
    cpu = run(recipe, folder / "out-cpu", deadline, cpu=True) if model.on_cpu else None
    print(f"\n{model.name}, {model.tokens} tokens")
    if gpu is None:
        print("  not built on the GPU within the time")
        return False
    for name, found in {"GPU": gpu, "CPU": cpu}.items():
        if found is None:
            continue
        print(
            f"  {name}: {found['device']}, {found['seconds']:.1f} s, "
            f"{found['memory'] / 1e9:.2f} GB of memory, {found['on_card'] / 1e9:.2f} GB on the card"
        )
        for step, seconds in sorted(found["steps"].items(), key=lambda item: -item[1])[:8]:
            print(f"    {seconds:8.1f} s  {step}")
        for setting in found["arithmetic"]:
            print(f"    {setting}")
    if cpu is None:
        print(f"  figures of the GPU alone: {json.dumps(gpu['figures'])}")
        return True
    return agree(gpu["figures"], cpu["figures"])


def agree(gpu: dict[str, dict[str, float]], cpu: dict[str, dict[str, float]]) -> bool:
    """Print every figure of both; whether each is near enough."""
    same = True
    for dtype, figures in cpu.items():
        for name, there in figures.items():
            here = gpu[dtype][name]
            near = max(here, there) <= (1 + TOLERANCE[dtype]) * min(here, there)
            same &= near
            print(f"  {dtype} {name}: {here:.3g} on the GPU, {there:.3g} on the CPU", end="")
            print("" if near else "  <-- DIFFERENT")
    return same


def write_recipe(model: Model, folder: Path) -> Path:
    """A recipe that steers along one direction, and holds a threshold on another."""
    import torch
    from safetensors.torch import save_file

    vectors = torch.randn(2, model.hidden_size, generator=torch.Generator().manual_seed(1))
    save_file({"a": vectors[0].clone()}, folder / f"a-{model.hidden_size}.safetensors")
    source = f"tokens: {model.tokens}, scan: 0"
    text = (
        f"base_model: {model.folder}\nsplices:\n  - after_layer: {model.layer}\n    edits:\n"
        f"      - {{kind: steer, vector: {{path: a-{model.hidden_size}.safetensors}}, "
        f"strength: 0.3 x norm}}\n"
        f"calibration: {{{source}}}\nfidelity: {{{source}}}\ndtype: bfloat16\n"
    )
    path = folder / f"recipe-{model.hidden_size}.yaml"
    path.write_text(text)
    return path


def run(recipe: Path, output: Path, deadline: float, *, cpu: bool) -> dict[str, Any] | None:
    """Build in a process of its own; None where the time did not suffice."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    if cpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, __file__, "--one", str(recipe), str(output)]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=max(1.0, deadline - time.monotonic()),
        )
    except subprocess.TimeoutExpired:
        return None
    finally:
        shutil.rmtree(output, ignore_errors=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def build_one(recipe: Path, output: Path) -> dict[str, Any]:
    """Build a recipe here; what it took, and its figures."""
    import torch

    from hubsplice.building.build import build
    from hubsplice.building.environment import read_environment
    from hubsplice.recipe.reading import load_recipe

    steps: dict[str, float] = {}
    last = [time.monotonic(), "start"]

    def report(step: str, _done: int, _total: int) -> None:
        now = time.monotonic()
        steps[last[1]] = steps.get(last[1], 0.0) + now - last[0]
        last[:] = [now, step.partition(": ")[0]]

    began = time.monotonic()
    result = build(
        load_recipe(recipe),
        output=output,
        require_fidelity=None,
        measure=True,
        hard_link=False,
        progress=report,
        allow_failed=True,
    )
    report("end", 0, 0)
    on_gpu = torch.cuda.is_available()
    assert result.report is not None
    return {
        "device": torch.cuda.get_device_name(0) if on_gpu else "cpu",
        "seconds": time.monotonic() - began,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "on_card": torch.cuda.max_memory_allocated() if on_gpu else 0,
        "steps": steps,
        "arithmetic": read_environment(output).arithmetic,
        "figures": {
            precision.dtype: {
                "splice error": precision.splice_error.mean,
                **(
                    {"noise floor": precision.noise_floor.mean}
                    if precision.noise_floor is not None
                    else {}
                ),
            }
            for precision in result.report.precisions
        },
    }


if __name__ == "__main__":
    main()
