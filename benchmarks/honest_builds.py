"""Whether the proof of structure passes right layers, and finds what is planted in them.

Layers are compiled on the streams of tiny random models: family by kind of edit by precision by
seed. Such streams are the hardest for the proof: along some directions next to nothing varies, and
read-outs are long there. Every right layer must pass, and every plant must be named.

    python benchmarks/honest_builds.py --seeds 2 --family gpt2 --family gpt_neox
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.families.variants import VARIANTS, Variant
from tests.proving.layers import plants
from tests.proving.tiny_models import DTYPES, Streams

RESULTS = Path(__file__).parent / "results"
KEPT, PAGE = RESULTS / "honest_builds.json", RESULTS / "honest_builds.md"

KINDS = (
    "relu ablate",
    "relu clamp",
    "jump ablate",
    "jump scale by 4",
    "jump floor",
    "gated steer",
    "steer",
    "project out",
    "two-sided ablate",
)
FAMILIES = ("gpt2", "gpt_neox", "starcoder2", "granite", "olmo2", "gemma2", "smollm3", "qwen3")
ROOM = 512


def variants(families: list[str]) -> Iterator[Variant]:
    """The first variant of each family, and of GPT-NeoX with blocks in parallel and not."""
    seen = set()
    for variant in VARIANTS:
        key = variant.family, variant.fields.get("use_parallel_residual")
        if variant.family in families and key not in seen:
            seen.add(key)
            fields = variant.fields
            if variant.family != "gpt2":
                fields = fields | {"intermediate_size": ROOM}
            yield Variant(variant.family, fields)


def tried(variant: Variant, seed: int, tokens: int) -> Counter[str]:
    """Right layers and planted ones of one model: how many there were, and which were misjudged."""
    counts: Counter[str] = Counter()
    streams = Streams.of(variant, seed, tokens)
    for source in ("random", "stream"):
        for features in (1, 2, 4):
            for kind in KINDS:
                for dtype in DTYPES:
                    try:
                        case = streams.case(kind, dtype, seed, features, source)
                    except RuntimeError:
                        counts["not compiled"] += 1
                        continue
                    told = f"{variant} seed {seed}, {features} of {source}, {kind}, {dtype}"
                    counts["right"] += 1
                    if problems := case.findings().problems:
                        counts["right, failed"] += 1
                        print(f"FAILED {told}: {problems[0]}", file=sys.stderr, flush=True)
                        continue
                    if features != 2 or kind not in KINDS[::2]:
                        continue
                    for name, changed in plants(case):
                        counts["planted"] += 1
                        if not case.findings(**changed).problems:
                            counts["planted, unnoticed"] += 1
                            print(f"UNNOTICED {told}: {name}", file=sys.stderr, flush=True)
    return counts


def page(rows: dict[str, dict[str, int]]) -> str:
    """What results/ keeps."""
    lines = [
        "# Right layers, and planted ones",
        "",
        "What the proof of structure says of layers that are compiled on streams of tiny random "
        "models, and of the same layers with a planted detector. `python "
        "benchmarks/honest_builds.py` makes this page.",
        "",
        "| model, seed, tokens | right | of them failed | planted | of them unnoticed |",
        "|---|---|---|---|---|",
    ]
    names = ("right", "right, failed", "planted", "planted, unnoticed")
    for name, counts in rows.items():
        cells = [str(counts.get(column, 0)) for column in names]
        lines.append(f"| {' | '.join([name, *cells])} |")
    total = [sum(counts.get(column, 0) for counts in rows.values()) for column in names]
    lines.append(f"| all | {' | '.join(map(str, total))} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--family", action="append", help="All of them if none is given.")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096])
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    rows = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    for variant in variants(arguments.family or list(FAMILIES)):
        parallel = variant.fields.get("use_parallel_residual", variant.family == "gpt_neox")
        name = variant.family + (", parallel" if parallel else "")
        for seed in range(arguments.seeds):
            for tokens in arguments.tokens:
                counts = tried(variant, seed, tokens)
                rows[f"{name}, {seed}, {tokens}"] = dict(counts)
                print(name, seed, tokens, dict(counts), file=sys.stderr, flush=True)
                KEPT.write_text(json.dumps(rows, indent=1))
                PAGE.write_text(page(rows))


if __name__ == "__main__":
    main()
