"""Writing a spliced checkpoint against `cp -r` of the base, and against mergekit.

The base is a Llama of 4 billion random bfloat16 weights in shards of 1 GB; an inserted layer goes
in the middle. Each round runs the ways in turn; the results are the medians of the ratios
within a round, since other work on the machine slows a whole round rather than one way.

    python benchmarks/write_checkpoint.py FOLDER [--mergekit ENVIRONMENT] [--layers N]

FOLDER is where the files go, on the disk to measure: 17 GB, removed at the end. mergekit runs in
an environment of its own, which is made when it is missing. Fewer than 32 layers give a smaller
model, in minutes; its results go to a file of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/write_checkpoint.md"
SMALL_RESULTS = ROOT / "benchmarks/results/write_checkpoint_small.md"
SHARD = 10**9
CP = "`cp -r`"
MERGEKIT = "mergekit==0.1.5"
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}

MEMORY = """
from pathlib import Path

def memory(field):
    status = Path("/proc/self/status").read_text()
    return int(status.split(field + ":")[1].split()[0]) * 1024
"""

# Both children time their work alone, without imports, and tell torch's memory apart: they both
# need it.
WRITE = f"""{MEMORY}
import json, sys, time
import torch
imported = memory("VmHWM")
from hubsplice.compiling.linker import Linker
from hubsplice.families.architecture import architecture_of
from hubsplice.constructions.prenorm_layer import SplicedLayer
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.files.staging import staged_directory
from hubsplice.checkpoint.writer import write_checkpoint
from hubsplice.intervention.place import Place

begin = time.perf_counter()
base, dtype = BaseCheckpoint.open(Path(sys.argv[1])), torch.bfloat16
family = architecture_of(base.config)
layers = family.layer_map([Place(int(sys.argv[4]))])
d, neurons = family.hidden_size, 64
random = torch.Generator().manual_seed(0)
layer = SplicedLayer(*(
    torch.randn(shape, generator=random)
    for shape in ((d,), (neurons, d), (neurons,), (neurons, d), (neurons,), (d, neurons), (d,))
))
linker = Linker(family, layers)
tensors = dict(linker.bias_tensors(base.tensors))
tensors |= linker.inserted_tensors(0, layer, dtype)
peak = memory("VmHWM")
# The peak is counted from here on.
Path("/proc/self/clear_refs").write_text("5")
held = memory("VmRSS")
with staged_directory(Path(sys.argv[2])) as folder:
    write_checkpoint(
        base, folder, rename=linker.rename, new_tensors=tensors,
        config=linker.config(dtype), hard_link=sys.argv[3] == "link",
    )
seconds, writing = time.perf_counter() - begin, memory("VmHWM")
print(json.dumps([seconds, max(peak, writing), imported, writing - held]))
"""

MERGE = f"""{MEMORY}
import json, sys, time
import torch
imported = memory("VmHWM")
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge

begin = time.perf_counter()
after = int(sys.argv[3])
zeroed = [{{"filter": name, "value": 0.0}} for name in ("o_proj", "down_proj")]
def layers(start, end, **more):
    return {{"sources": [{{"model": sys.argv[1], "layer_range": [start, end], **more}}]}}
config = MergeConfiguration.model_validate({{
    "merge_method": "passthrough", "dtype": "bfloat16",
    "slices": [
        layers(0, after + 1),
        layers(after, after + 1, parameters={{"scale": [*zeroed, {{"value": 1.0}}]}}),
        layers(after + 1, int(sys.argv[4])),
    ],
}})
options = MergeOptions(out_shard_size={SHARD // 2}, copy_tokenizer=False, lazy_unpickle=True)
held = memory("VmHWM")
run_merge(config, sys.argv[2], options)
peak = memory("VmHWM")
print(json.dumps([time.perf_counter() - begin, peak, imported, peak - held]))
"""


@dataclass(frozen=True)
class Run:
    """What a way took.

    Attributes:
        seconds: without imports.
        peak: bytes of resident memory, at most, of the whole process.
        imported: bytes at the peak after `import torch`, before anything else.
        added: bytes that writing adds at most to what the process held before.
    """

    seconds: float
    peak: int
    imported: int
    added: int


Way = Callable[[Path, Path], Run]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mergekit", type=Path)
    parser.add_argument("--layers", type=int, default=CONFIG["num_hidden_layers"])
    parser.add_argument("--rounds", type=int, default=5, help="of either kind")
    arguments = parser.parse_args()
    results = RESULTS if arguments.layers == CONFIG["num_hidden_layers"] else SMALL_RESULTS
    CONFIG["num_hidden_layers"] = arguments.layers
    after = arguments.layers // 2 - 1
    ways: dict[str, Way] = {
        CP: copy(),
        f"{CP} and `sync`": copy("sync -f {out}"),
        # It has the processor's own instructions for SHA-256, as hubsplice has; sha256sum often
        # has not, and takes many times as long.
        f"{CP}, `sync` and `openssl sha256` of both": copy(
            "sync -f {out}", "openssl sha256 {base}/* {out}/*"
        ),
        "hubsplice, synced to the disk": splice("copy", after),
        "hubsplice with hard links": splice("link", after),
    }
    note = "mergekit was not asked for."
    if arguments.mergekit is not None:
        note = ensure_mergekit(arguments.mergekit)
        if not note:
            ways["mergekit"] = merge(arguments.mergekit / "bin/python", after)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        base = folder / "base"
        write_base(base)
        load = os.getloadavg()[0]
        warm = measure(base, folder / "out", ways, arguments.rounds, warm_up)
        ways.pop("mergekit", None)
        cold = measure(base, folder / "out", ways, arguments.rounds, evict)
        machine = describe_machine(folder, (load, os.getloadavg()[0]))
    results.write_text(document(machine, warm, cold, note))
    print(results.read_text())


def write_base(folder: Path) -> None:
    """Write shards of random weights, none of which is infinite or NaN."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    random = np.random.default_rng(0)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    room = SHARD
    for name, shape in base_tensors():
        size = 2 * int(np.prod(shape))
        if size > room:
            shards.append({})
            room = SHARD
        shards[-1][name] = shape
        room -= size
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        path = folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, shape in shard.items():
            start, end = end, end + 2 * int(np.prod(shape))
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
            weight_map[name] = path.name
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for shape in shard.values():
                bits = np.frombuffer(random.bytes(2 * int(np.prod(shape))), np.uint16)
                # Any sign and mantissa, and exponents from 2^-15 to 2^-8.
                file.write((bits & 0x83FF | 0x3800).data)
            os.fsync(file.fileno())
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def base_tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, width, vocabulary = (
        CONFIG[f"{name}_size"] for name in ("hidden", "intermediate", "vocab")
    )
    queries, keys = (
        CONFIG[f"num_{name}_heads"] * CONFIG["head_dim"] for name in ("attention", "key_value")
    )
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "self_attn.q_proj.weight", (queries, hidden)
        yield prefix + "self_attn.k_proj.weight", (keys, hidden)
        yield prefix + "self_attn.v_proj.weight", (keys, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, queries)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "mlp.gate_proj.weight", (width, hidden)
        yield prefix + "mlp.up_proj.weight", (width, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, width)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocabulary, hidden)


def measure(
    base: Path, out: Path, ways: Mapping[str, Way], rounds: int, prepare: Callable[[Path], None]
) -> list[dict[str, Run]]:
    """Every way once a round, but mergekit every second one; each begins with another way."""
    measured: list[dict[str, Run]] = []
    for number in range(rounds):
        names = [name for name in ways if name != "mergekit" or number % 2 == 0]
        runs: dict[str, Run] = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            # What the run before has left to be written must not fall on this one.
            os.sync()
            prepare(base)
            runs[name] = ways[name](base, out)
            print(number, name, runs[name], file=sys.stderr, flush=True)
            shutil.rmtree(out)
        measured.append(runs)
    return measured


def warm_up(base: Path) -> None:
    for path in base.iterdir():
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def evict(base: Path) -> None:
    for path in base.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy(*then: str) -> Way:
    """`cp -r`, and the commands that do what else hubsplice has done when it ends."""

    def way(base: Path, out: Path) -> Run:
        line = " && ".join(["cp -r {base} {out}", *then])
        begin = time.perf_counter()
        subprocess.run(
            line.format(base=base, out=out), shell=True, check=True, stdout=subprocess.DEVNULL
        )
        return Run(time.perf_counter() - begin, 0, 0, 0)

    return way


def splice(mode: str, after: int) -> Way:
    return lambda base, out: child(
        [sys.executable, "-c", WRITE, str(base), str(out), mode, str(after)]
    )


def merge(python: Path, after: int) -> Way:
    places = [str(after), str(CONFIG["num_hidden_layers"])]
    return lambda base, out: child([str(python), "-c", MERGE, str(base), str(out), *places])


def child(command: list[str]) -> Run:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return Run(*json.loads(done.stdout.splitlines()[-1]))


def ensure_mergekit(environment: Path) -> str:
    """Make the environment where it is missing; returns why mergekit has no row, or nothing."""
    python = environment / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    for requirement in ("torch==2.13.0", MERGEKIT):
        install = [python, "-m", "pip", "install", "--quiet", requirement]
        if subprocess.run(install, check=False).returncode:
            return f"mergekit has no row: {requirement} could not be installed."
    return ""


def describe_machine(folder: Path, load: tuple[float, float]) -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    filesystem = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", folder],
        capture_output=True,
        text=True,
    ).stdout.strip()
    return (
        f"{date.today()}, {cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, "
        f"{memory / 2**30:.0f} GiB of memory, {filesystem}, Linux {platform.release()}, Python "
        f"{platform.python_version()}; the load average was {load[0]:.1f} before and "
        f"{load[1]:.1f} after"
    )


def document(
    machine: str, warm: list[dict[str, Run]], cold: list[dict[str, Run]], note: str
) -> str:
    lines = [
        "# Writing a spliced checkpoint",
        "",
        f"{machine}. A Llama of {billions():.1f} billion random bfloat16 weights and "
        f"{CONFIG['num_hidden_layers']} layers in shards of 1 GB, one inserted layer in the "
        "middle. Regenerate with `python benchmarks/write_checkpoint.py FOLDER --mergekit "
        "ENVIRONMENT`, or with `--layers "
        f"{CONFIG['num_hidden_layers']}`.",
    ]
    for title, rounds in (("The base in the page cache", warm), ("The base on the disk", cold)):
        lines += [
            "",
            f"## {title}",
            "",
            "| | rounds | time ÷ `cp -r`: median (range) | seconds: median (range) | peak memory | "
            "of which `import torch` | writing adds |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in rounds[0]:
            own = [runs[name] for runs in rounds if name in runs]
            ratios = [runs[name].seconds / runs[CP].seconds for runs in rounds if name in runs]
            cells = [
                name,
                str(len(own)),
                spread(ratios, 2),
                spread([run.seconds for run in own], 1),
                mebibytes(run.peak for run in own),
                mebibytes(run.imported for run in own),
                mebibytes(run.added for run in own),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Before each run, what is left to be written is synced, and the base read through or "
        "dropped from the page cache. `cp -r` leaves its data in the cache when it ends; hubsplice "
        "ends when everything is on the disk, and has by then the SHA-256 of every file of the "
        "base and of the result, as the third row has. Memory is the largest of all rounds: the "
        "peak of the whole process, what a process has that imports torch and nothing else, and "
        "what writing adds to what the process held before. Times of hubsplice and mergekit are "
        "without imports. mergekit repeats a layer with `scale: 0`, by passthrough. "
        f"{note}".rstrip(),
        "",
        "A load average above the number of cores is other work on the machine. Much of the range "
        "is then that work, and a median of few rounds does not settle a ratio near 1.",
        "",
    ]
    return "\n".join(lines)


def billions() -> float:
    return sum(float(np.prod(shape)) for _, shape in base_tensors()) / 1e9


def mebibytes(values: Iterable[int]) -> str:
    largest = max(values)
    return f"{largest / 2**20:,.0f} MiB" if largest else ""


def spread(values: list[float], digits: int) -> str:
    return (
        f"{statistics.median(values):.{digits}f} "
        f"({min(values):.{digits}f} to {max(values):.{digits}f})"
    )


if __name__ == "__main__":
    main()
