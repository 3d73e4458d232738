"""What a build takes by the size of its base: peak memory, time, and layers passed by tokens.

The bases are Llamas of random bfloat16 weights. Each build runs in a process of its own, with one
splice half way up, and is measured. `--old` names a copy of the project whose code is run as well.
The limit is plain forward passes: as many token-layers as a build can't do without, each at the
speed of a forward pass over the same tokens in the same precision. Each run adds a line to the
results as it ends, and the page is written anew.

    python -m benchmarks.size FOLDER --size 1b [--old FOLDER] [--layers N] [--base FOLDER]

FOLDER is where the files go: three times the size of a base, removed at the end. A base that is
there already is named by --base, the folder of `base` and `v.safetensors`, which stay as they are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from hubsplice.fidelity.passes import plain_sequences
from hubsplice.streams.room import free_memory

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/size.jsonl"
PAGE = ROOT / "benchmarks/results/size.md"
LENGTH = 128
SECOND = ", another strength afterwards"

# How often held-out text is turned to logits: base, hook, plain hook and splice; hook and splice.
# Rows say it themselves since a plain hook is run over a part of the text.
READ = {"float32": 4, "bfloat16": 2}

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "heads": 4},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "heads": 32},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "heads": 32},
}
VOCABULARY = {"tiny": 320, "1b": 32000, "8b": 128256}

# In a process of its own: a build, or plain passes; the last line that it prints is its result.
CHILD = """
import hashlib, json, resource, sys, time
from collections import Counter
from pathlib import Path
import torch
from torch import nn

what, base, vector, out, tokens, length, layer, strength, generates = sys.argv[1:10]
tokens, length, layer = int(tokens), int(length), int(layer)
passed = Counter()

def count(module, args, output):
    h = output[0] if isinstance(output, tuple) else output
    if type(module).__name__ == "LlamaDecoderLayer":
        of = "text" if h.shape[1] == length else "generation"
        passed[f"{of} {str(h.dtype).removeprefix('torch.')}"] += h.shape[0] * h.shape[1]

nn.modules.module.register_module_forward_hook(count)
began = time.monotonic()
result = {}

if what == "plain":
    from hubsplice.streams.model import loaded
    torch.manual_seed(0)
    ids = torch.randint(3, 259, (tokens // length, length))
    from hubsplice.streams.on_disk import held
    with loaded(Path(base), getattr(torch, strength)) as model, torch.inference_mode():
        start, cpu = time.monotonic(), time.process_time()
        last = model.base_model(ids, use_cache=False).last_hidden_state
        result["pass"] = time.monotonic() - start
        result["pass_cpu"] = time.process_time() - cpu
        start, cpu = time.monotonic(), time.process_time()
        head = model.get_output_embeddings()
        with held(head):
            for part in last:
                head(part[None])
        result["logits"] = time.monotonic() - start
        result["logits_cpu"] = time.process_time() - cpu
    result["sha256"] = hashlib.sha256(last.view(torch.uint8).numpy().tobytes()).hexdigest()
else:
    from hubsplice.building.build import build
    from hubsplice.recipe.reading import parse_recipe
    if generates == "no":
        from hubsplice.fidelity import runs
        runs.MOST_READ = -1
    recipe = f'''
base_model: {base}
splices:
  - {{after_layer: {layer}, edits:
      [{{kind: clamp_projection, vector: {{path: {vector}}}, to: {strength}}}]}}
calibration: {{tokens: {tokens}, sequence_length: {length}}}
fidelity: {{tokens: {tokens}, sequence_length: {length}}}
'''
    steps, used = Counter(), Counter()
    last = [None, began, 0.0]
    def progress(step, done, total):
        name = step.partition(":")[0]
        now, cpu = time.monotonic(), time.process_time()
        if last[0]:
            steps[last[0]] += now - last[1]
            used[last[0]] += cpu - last[2]
        last[:] = [name, now, cpu]
    build(parse_recipe(recipe, folder=Path(out).parent), output=Path(out), require_fidelity=None,
          measure=True, hard_link=False, progress=progress, allow_failed=True)
    progress("end", 1, 1)
    result["steps"] = {n: [round(steps[n], 1), round(used[n], 1)] for n in steps}
result["wall"] = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_SELF)
result["cpu"] = used.ru_utime + used.ru_stime
result["peak_mb"] = used.ru_maxrss // 1024
result["passed"] = passed
print(json.dumps(result))
"""


@dataclass(frozen=True)
class Run:
    """A build or a pass.

    Attributes:
        name: in the results.
        what: a build of some strength (`build 2`), or a pass (`plain float32`).
        code: the project that does it.
        memory: HUBSPLICE_MEMORY.
        generates: `yes`, or `no` for a build that leaves out whatever is generated.
        is_fresh: whether no work is kept from the run before.
    """

    name: str
    what: str
    code: Path
    memory: str
    generates: str = "yes"
    is_fresh: bool = True


def make_base(folder: Path, size: str) -> None:
    """Write a random Llama layer by layer."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    from tests.tiny_tokenizer import byte_tokenizer

    fields = SIZES[size]
    d, inner, heads = fields["hidden_size"], fields["intermediate_size"], fields["heads"]
    kv = max(1, heads // 4)
    config = LlamaConfig(
        vocab_size=VOCABULARY[size],
        hidden_size=d,
        intermediate_size=inner,
        num_hidden_layers=fields["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    config.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Any:
        # Layers add about as much to the stream as those of trained models do.
        return (0.02 * torch.randn(*shape, generator=generator)).bfloat16()

    def shards() -> Iterator[dict[str, Any]]:
        vocabulary = VOCABULARY[size]
        embeddings = 25 * random(vocabulary, d)
        # As in trained models, the token that begins a sequence is an attention sink.
        embeddings[config.bos_token_id] *= 100
        yield {"model.embed_tokens.weight": embeddings}
        for i in range(fields["num_hidden_layers"]):
            shapes = {
                "self_attn.q_proj": (d, d),
                "self_attn.k_proj": (d // heads * kv, d),
                "self_attn.v_proj": (d // heads * kv, d),
                "self_attn.o_proj": (d, d),
                "mlp.gate_proj": (inner, d),
                "mlp.up_proj": (inner, d),
                "mlp.down_proj": (d, inner),
            }
            named = {f"model.layers.{i}.{n}.weight": random(*s) for n, s in shapes.items()}
            for norm in ("input_layernorm", "post_attention_layernorm"):
                named[f"model.layers.{i}.{norm}.weight"] = torch.ones(d, dtype=torch.bfloat16)
            yield named
        yield {
            "model.norm.weight": torch.ones(d, dtype=torch.bfloat16),
            "lm_head.weight": random(vocabulary, d),
        }

    index: dict[str, str] = {}
    total = 0
    for i, tensors in enumerate(shards()):
        name = f"model-{i:05}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, name)
        total += sum(t.nbytes for t in tensors.values())
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    vector = torch.randn(d, generator=generator)
    save_file({"v": vector / vector.norm()}, folder.parent / "v.safetensors")


def child(
    run: Run, base: Path, folder: Path, layer: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Run it in a process of its own, and give its figures."""
    what, _, strength = run.what.partition(" ")
    environment = os.environ | {
        "PYTHONPATH": str(run.code),
        "HUBSPLICE_MEMORY": run.memory,
        "HUBSPLICE_CACHE": str(folder / "kept"),
        "OMP_NUM_THREADS": str(options.threads),
    }
    if run.is_fresh:
        shutil.rmtree(folder / "kept", ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        arguments = [what, base / "base", base / "v.safetensors", Path(out, "spliced")]
        command = [sys.executable, "-c", CHILD, *arguments]
        command += [options.tokens, LENGTH, layer, strength, run.generates]
        done = subprocess.run(
            list(map(str, command)), env=environment, cwd=folder, text=True, stdout=subprocess.PIPE
        )
    if done.returncode:
        return {"failed": done.returncode}
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def plain_tokens(tokens: int) -> int:
    """How many of so many tokens the hook that edits sinks is run over."""
    return plain_sequences(tokens // LENGTH, LENGTH) * LENGTH


def least(layers: int, layer: int, tokens: int) -> dict[str, int]:
    """The token-layers of text that calibration and measurement can't do without, by precision."""
    before, after = layer + 1, layers - layer - 1
    # The base and the hook behind the site, a plain hook, and the splice with its layer.
    precise = (2 * before + 2 * after + after + 1) * tokens + after * plain_tokens(tokens)
    served = 2 * before + after + after + 1
    return {"float32": precise, "bfloat16": served * tokens}


def main() -> None:
    """Build, measure, and add lines to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--layers", type=int, help="another number of layers than the size has")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--old", type=Path)
    parser.add_argument("--plain", action="store_true", help="forward passes alone, no build")
    parser.add_argument("--no-plain", action="store_true", help="builds alone")
    parser.add_argument("--once", action="store_true", help="no second strength")
    parser.add_argument("--silent", action="store_true", help="builds that generate nothing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=2048, help="of either kind of text")
    parser.add_argument("--memory", nargs="*", default=["0"], help="HUBSPLICE_MEMORY of each build")
    options = parser.parse_args()
    layers = options.layers or SIZES[options.size]["num_hidden_layers"]
    SIZES[options.size]["num_hidden_layers"] = layers
    layer = layers // 2 - 1
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="size-") as temporary:
        folder = Path(temporary)
        base = options.base or folder
        if options.base is None:
            (base / "base").mkdir()
            make_base(base / "base", options.size)
        index = json.loads((base / "base/model.safetensors.index.json").read_text())
        weights = index["metadata"]["total_size"]
        shared = {
            "date": date.today().isoformat(),
            "size": options.size,
            "layers": layers,
            "weights_mb": weights // 10**6,
            "tokens": options.tokens,
            "threads": options.threads,
            "processor": platform.processor() or platform.machine(),
            "least": least(layers, layer, options.tokens),
            "read": {"float32": 3 + plain_tokens(options.tokens) / options.tokens, "bfloat16": 2},
        }
        for run in runs(options, weights):
            line = shared | {"run": run.name} | child(run, base, folder, layer, options)
            print(json.dumps(line), flush=True)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            write_page()


def runs(options: argparse.Namespace, weights: int) -> Iterator[Run]:
    """What is asked for."""
    for dtype, factor in (("bfloat16", 1), ("float32", 2)) if not options.no_plain else ():
        for m in ("whole", "0"):
            if m == "0" or 1.5 * factor * weights < free_memory():
                yield Run(f"plain {dtype}, memory {m}", f"plain {dtype}", ROOT, m)
    if options.plain:
        return
    generates, note = ("no", ", nothing generated") if options.silent else ("yes", "")
    for m in options.memory:
        name = f"new, memory {m}{note}"
        yield Run(name, "build 1", ROOT, m, generates)
        if not options.once:
            yield Run(name + SECOND, "build 2", ROOT, m, generates, is_fresh=False)
    if options.old:
        yield Run("old", "build 1", options.old, "whole")


def write_page() -> None:
    """Write the page of all results."""
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    plain = [line for line in lines if "pass" in line]
    builds = [line for line in lines if "steps" in line]
    PAGE.write_text(
        "\n".join(
            [
                "# Models of any size: measured",
                "",
                *_paragraph(TOP, dates=", ".join(sorted({line["date"] for line in lines}))),
                "",
                "## Passes",
                "",
                "| base | tokens | precision | weights | peak memory | CPU time | wall |",
                "|---|--:|---|---|--:|--:|--:|",
                *map(_pass_row, plain),
                "",
                *_paragraph(AMONG_PASSES),
                "",
                "## Builds",
                "",
                "| base | tokens | build | peak memory | CPU time | wall | token-layers ÷ least | "
                "CPU ÷ passes | wall ÷ passes |",
                "|---|--:|---|--:|--:|--:|--:|--:|--:|",
                *(_build_row(line, plain) for line in builds if SECOND not in line["run"]),
                "",
                *_paragraph(AMONG_BUILDS),
                "",
                "## Another strength",
                "",
                "| base | tokens | build | peak memory | CPU time | wall | token-layers ÷ first | "
                "CPU ÷ first | wall ÷ first |",
                "|---|--:|---|--:|--:|--:|--:|--:|--:|",
                *_second_rows(builds),
                "",
                *_paragraph(AMONG_SECONDS),
                "",
            ]
        ),
        encoding="utf-8",
    )


TOP = """
Llamas of random bfloat16 weights, built and measured with one splice half way up, on one thread of
a shared x86-64 machine with AMX, {dates}. Memory is the peak of the whole
process, libraries included; wall time has other work of the machine in it, CPU time has not. "On
the disk" is HUBSPLICE_MEMORY=0. Each row is a run of `python -m benchmarks.size FOLDER`, with
`--size`, `--layers`, `--tokens`, `--old` and `--silent`. Nothing of this was run on a GPU.
"""

AMONG_PASSES = """
One forward pass over sequences of 128 tokens, without loading. The last hidden states of a base,
text and precision are the same bits in all of its rows; their SHA-256 is in `size.jsonl`. Bases
that were made before 2026-11-30 have no attention sinks, and so other states.
"""

AMONG_BUILDS = """
Tokens are those of calibration, and as many held out. The least is what calibration and
measurement can't do without, counted in tokens times layers. "Passes" is the time of as many plain
passes, by the rows above with the layers on the disk, and of their logits, where those were timed.
What is generated is in the time of a build, not in that of the passes, unless nothing is. The
start, the text and compiling take about as long at every size.
"""

AMONG_SECONDS = """
A build of the same recipe with another strength, right after the first. What comes before the edit
is kept work, and so are the base's last states. What comes behind the edit has to be passed again
for the hook, a plain hook and the splice: that share of the token-layers is the limit.
"""


def _paragraph(text: str, **fields: str) -> list[str]:
    return text.strip().format(**fields).splitlines()


def _base(line: dict[str, Any]) -> str:
    # Rows say how often text is read since bases have attention sinks.
    sinks = ", with sinks" if "read" in line else ""
    return f"{line['weights_mb'] / 2e3:.2g} B, {line['layers']} layers{sinks}"


def _pass_row(line: dict[str, Any]) -> str:
    _, dtype, _, memory = line["run"].replace(",", "").split()
    weights = "on the disk" if memory == "0" else memory
    cells = [
        _base(line),
        f"{line['tokens']:,}",
        dtype,
        weights,
        f"{line['peak_mb']:,} MB",
        f"{line['pass_cpu']:.1f} s",
        f"{line['pass']:.1f} s",
    ]
    return f"| {' | '.join(cells)} |"


def _build_row(line: dict[str, Any], plain: list[dict[str, Any]]) -> str:
    cells = [*_build(line), f"{_text_passed(line) / sum(line['least'].values()):.2f}"]
    for field, end in (("cpu", "_cpu"), ("wall", "")):
        needed = _needed(line, plain, end)
        cells.append(f"{line[field] / needed:.2f}" if needed else "")
    return f"| {' | '.join(cells)} |"


def _second_rows(builds: list[dict[str, Any]]) -> Iterator[str]:
    """Each build of another strength, against the build that ran before it."""
    for first, second in itertools.pairwise(builds):
        if second["run"] == first["run"] + SECOND:
            ratios = [
                _text_passed(second) / _text_passed(first),
                second["cpu"] / first["cpu"],
                second["wall"] / first["wall"],
            ]
            cells = [*_build(second), *(f"{ratio:.2f}" for ratio in ratios)]
            yield f"| {' | '.join(cells)} |"


def _build(line: dict[str, Any]) -> list[str]:
    run = line["run"].removesuffix(SECOND)
    return [
        _base(line),
        f"{line['tokens']:,}",
        run.replace("memory 0", "on the disk").replace("memory whole", "whole")
        + (f" ({line['note']})" if "note" in line else ""),
        f"{line['peak_mb']:,} MB",
        f"{line['cpu']:.0f} s",
        f"{line['wall']:.0f} s",
    ]


def _text_passed(line: dict[str, Any]) -> int:
    """The token-layers of text that a build passed."""
    return sum(n for name, n in line["passed"].items() if name.startswith("text"))


def _needed(line: dict[str, Any], plain: list[dict[str, Any]], end: str) -> float | None:
    """The time of the plain passes that a build can't do without; None where they weren't run.

    Those of fewer tokens stand in for as many as they are, and those of another day where there are
    none of the same day.
    """
    alike = [p for p in plain if all(p[k] == line[k] for k in ("weights_mb", "layers"))]
    alike.sort(key=lambda p: (p["date"] == line["date"], p["tokens"]))
    found = {p["run"]: p for p in alike}
    total = 0.0
    for dtype, token_layers in line["least"].items():
        one = found.get(f"plain {dtype}, memory 0")
        if one is None:
            return None
        scale = line["tokens"] / one["tokens"]
        total += scale * one[f"pass{end}"] * token_layers / (line["layers"] * line["tokens"])
        total += scale * one.get(f"logits{end}", 0) * line.get("read", READ)[dtype]
    return total


if __name__ == "__main__":
    main()
