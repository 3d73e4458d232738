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
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.compiling.construct import compile_site
from hubsplice.families.architecture import Architecture, architecture_of
from hubsplice.intervention.site import Site, Term
from hubsplice.proving.stored_layer import StoredLayer
from hubsplice.streams.calibration import SiteActivations, median_norm, stream_at
from hubsplice.streams.model import loaded
from tests.compiling.trained import LENGTH, NOTHING, PLACE, text_ids
from tests.constructions.streams import EDITS
from tests.families.variants import VARIANTS, Variant, save_tiny
from tests.proving.layers import Case, padded, plants

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
DTYPES = (torch.bfloat16, torch.float32)
FAMILIES = ("gpt2", "gpt_neox", "starcoder2", "granite", "olmo2", "gemma2", "smollm3", "qwen3")
ROOM = 512


@dataclass(frozen=True, eq=False)
class Streams:
    """The stream of a tiny random model, [tokens, d], in both precisions."""

    architecture: Architecture
    at: dict[torch.dtype, Tensor]

    @staticmethod
    def of(variant: Variant, seed: int, tokens: int) -> Streams:
        """The stream on text, behind layer 1 of a model of bfloat16 weights."""
        ids = text_ids()
        order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            base = save_tiny(variant, Path(folder), torch.bfloat16, seed=seed)
            for dtype in DTYPES:
                with loaded(base, dtype) as model:
                    at = stream_at(
                        model, ids[order[: tokens // LENGTH]], [PLACE], NOTHING, lambda *_: None
                    )
                found[dtype] = at[PLACE]
            return Streams(architecture_of(BaseConfig.open(base).config), found)

    def case(self, kind: str, dtype: torch.dtype, seed: int, features: int, source: str) -> Case:
        """A right layer of edits of some features."""
        exact = self.at[torch.float32]
        activations = SiteActivations(
            exact, self.at[dtype], median_norm(exact), self.architecture.norm_eps
        )
        site = _site(kind, activations, seed, features, source)
        layer = compile_site(self.architecture, site, activations, dtype)
        filled: dict[str, Any] = {role: padded(role, t) for role, t in layer.tensors().items()}
        stored = StoredLayer(
            PLACE,
            PLACE.layer + 1,
            replace(layer, **filled),
            {role: f"model.layers.{PLACE.layer + 1}.{role}" for role in filled},
            {},
            layer.constants | {"homes": list(layer.homes)},
            activations.eps,
        )
        return Case(stored, site, activations.median_norm)


def _site(kind: str, activations: SiteActivations, seed: int, features: int, source: str) -> Site:
    """Features along random directions, or along what the stream itself takes."""
    h, sink_norm = activations.reference, 5 * activations.median_norm
    ordinary = h[h.norm(dim=1) <= sink_norm]
    generator = torch.Generator().manual_seed(seed)
    if source == "stream":
        chosen = ordinary[torch.randperm(len(ordinary), generator=generator)[: 2 * features]]
        axes = functional.normalize(chosen - ordinary.mean(dim=0), dim=1)
    else:
        axes = 0.3 * torch.randn(2 * features, h.shape[1], generator=generator)
    terms = []
    for i in range(features):
        p = ordinary @ axes[2 * i]
        bias = -float(p.quantile(0.9)) if source == "stream" else 0.1
        function = EDITS[kind].function(float(p.std()))
        terms.append(Term(f"feature {i}", axes[2 * i], bias, function, axes[2 * i + 1]))
    return Site(PLACE.layer, tuple(terms), sink_norm, PLACE.block)


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


def tried(variant: Variant, seed: int, tokens: int, *, planted: bool) -> Counter[str]:
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
                    if not planted or features != 2 or kind not in KINDS[::2]:
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
                counts = tried(variant, seed, tokens, planted=True)
                rows[f"{name}, {seed}, {tokens}"] = dict(counts)
                print(name, seed, tokens, dict(counts), file=sys.stderr, flush=True)
                KEPT.write_text(json.dumps(rows, indent=1))
                PAGE.write_text(page(rows))


if __name__ == "__main__":
    main()
