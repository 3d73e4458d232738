"""What a build takes by the size of its base: peak memory, time, and layers passed by tokens.

The bases are Llamas of random bfloat16 weights. Each build runs in a process of its own, with one
splice half way up, and is measured. `--old` names a copy of the project whose code is run as well.
The limit is plain forward passes: as many token-layers as a build can't do without, each at the
speed of a forward pass over the same tokens in the same precision.

    python benchmarks/size.py FOLDER --size 1b [--old FOLDER] [--threads N]

FOLDER is where the files go: three times the size of a base, removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/size.jsonl"
LENGTH = 128

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

what, base, vector, out, tokens, length, layer, strength = sys.argv[1:9]
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
    with loaded(Path(base), getattr(torch, strength)) as model, torch.inference_mode():
        start = time.monotonic()
        last = model.base_model(ids, use_cache=False).last_hidden_state
        result["pass"] = time.monotonic() - start
    result["sha256"] = hashlib.sha256(last.view(torch.uint8).numpy().tobytes()).hexdigest()
else:
    from hubsplice.building.build import build
    from hubsplice.recipe.reading import parse_recipe
    recipe = f'''
base_model: {base}
splices:
  - {{after_layer: {layer}, edits:
      [{{kind: clamp_projection, vector: {{path: {vector}}}, to: {strength}}}]}}
calibration: {{tokens: {tokens}, sequence_length: {length}}}
fidelity: {{tokens: {tokens}, sequence_length: {length}}}
'''
    steps = Counter()
    last = [None, began]
    def progress(step, done, total):
        name = step.partition(":")[0]
        now = time.monotonic()
        if last[0]:
            steps[last[0]] += now - last[1]
        last[:] = [name, now]
    build(parse_recipe(recipe, folder=Path(out).parent), output=Path(out), require_fidelity=None,
          measure=True, hard_link=False, progress=progress, allow_failed=True)
    if last[0]:
        steps[last[0]] += time.monotonic() - last[1]
    result["steps"] = {name: round(seconds, 1) for name, seconds in steps.items()}
result["wall"] = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_SELF)
result["cpu"] = used.ru_utime + used.ru_stime
result["peak_mb"] = used.ru_maxrss // 1024
result["passed"] = passed
print(json.dumps(result))
"""


def make_base(folder: Path, size: str) -> int:
    """Write a random Llama layer by layer, and give the bytes of its weights."""
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
        yield {"model.embed_tokens.weight": 25 * random(vocabulary, d)}
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
    return total


def child(
    what: str, folder: Path, layer: int, code: Path, memory: str, options: argparse.Namespace
) -> Any:
    """Run a build of a strength (`build 2`) or a pass (`plain float32`), and give its figures."""
    what, _, strength = what.partition(" ")
    environment = os.environ | {
        "PYTHONPATH": str(code),
        "HUBSPLICE_MEMORY": memory,
        "HUBSPLICE_CACHE": str(folder / "kept"),
        "OMP_NUM_THREADS": str(options.threads),
    }
    with tempfile.TemporaryDirectory(dir=folder) as out:
        arguments = [what, folder / "base", folder / "v.safetensors", Path(out, "spliced")]
        command = [sys.executable, "-c", CHILD, *arguments]
        command += [options.tokens, LENGTH, layer, strength]
        done = subprocess.run(
            list(map(str, command)), env=environment, cwd=folder, text=True, stdout=subprocess.PIPE
        )
    if done.returncode:
        return {"failed": done.returncode}
    return json.loads(done.stdout.splitlines()[-1])


def least(layers: int, layer: int, tokens: int) -> dict[str, int]:
    """The token-layers of text that calibration and measurement can't do without, by precision."""
    before, after = layer + 1, layers - layer - 1
    # The base and the hook behind the site, a plain hook, and the splice with its layer.
    precise = 2 * before + 3 * after + after + 1
    served = 2 * before + after + after + 1
    return {"float32": precise * tokens, "bfloat16": served * tokens}


def main() -> None:
    """Build, measure, and add lines to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--old", type=Path)
    parser.add_argument("--plain", action="store_true", help="forward passes alone, no build")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=2048, help="of either kind of text")
    parser.add_argument("--memory", nargs="*", default=["0"], help="HUBSPLICE_MEMORY of each build")
    options = parser.parse_args()
    layers = SIZES[options.size]["num_hidden_layers"]
    layer = layers // 2 - 1
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="size-") as temporary:
        folder = Path(temporary)
        (folder / "base").mkdir()
        weights = make_base(folder / "base", options.size)
        shared = {
            "date": date.today().isoformat(),
            "size": options.size,
            "weights_mb": weights // 10**6,
            "tokens": options.tokens,
            "threads": options.threads,
            "processor": platform.processor() or platform.machine(),
            "least": least(layers, layer, options.tokens),
        }
        runs = [
            (f"plain {dtype}, memory {m}", f"plain {dtype}", ROOT, m)
            for dtype in ("bfloat16", "float32")
            for m in ("whole", "0")
        ]
        if options.plain:
            options.memory, options.old = [], None
        runs += [(f"new, memory {m}", "build 1", ROOT, m) for m in options.memory]
        runs += [
            (f"{name} again, another strength", "build 2", *more)
            for name, _, *more in runs[-1:]
            if options.memory
        ]
        if options.old:
            runs.append(("old", "build 1", options.old, "whole"))
        for name, what, code, memory in runs:
            line = shared | {"run": name} | child(what, folder, layer, code, memory, options)
            print(json.dumps(line), flush=True)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
