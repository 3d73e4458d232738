"""What edits as adapters cost to serve: against the merged splice, and against the base.

SmolLM2-135M-Instruct is loaded by vLLM as the base, as a merged splice, as a carrier without LoRA,
and as a carrier with LoRA, confined to the carrier's layer as `hubsplice serve` does it. Rounds ask
each of them the same, one at a time and every round in another order; of the carrier with LoRA, no
request of the batch has an adapter, all have the same one, or each of the eight has its own. Ratios
are within a round, and sessions start all engines anew. The page is written after each of them.

    python benchmarks/adapters.py [--models FOLDER] [--minutes N]

The machine has to be quiet. With `--models` the models are kept in a folder, and taken from it if
they are there: `--sessions 0` builds them and measures nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.processes import RESULTS, SAE, Answer, EngineProcess, machine, start_vllm
from benchmarks.serving import (
    DECODE,
    LOADS,
    PREFILL,
    Ask,
    Load,
    Measurements,
    run_session,
    session_options,
)
from examples.smollm2 import fetch_smollm2
from hubsplice.adapters.carrier import Carrier
from hubsplice.building.adapter import build_adapter
from hubsplice.building.carrier import build_carrier
from hubsplice.building.merge import merge
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.families.engines import EngineKey
from hubsplice.recipe.reading import parse_recipe
from hubsplice.serving.adapters import adapter_options, find_adapter

EDITS = 8
MERGED, OFF = "merged splice", "carrier, LoRA off"
NONE, ONE, MIXED = "LoRA on, no adapter", "one adapter", "eight adapters in a batch"

TARGETS = ((MIXED, MERGED, 0.9), (NONE, OFF, 0.95))
"""The least that a throughput should be, as a share of another."""


@dataclass(frozen=True)
class Models:
    """What is served: folders, and the arguments that have vLLM serve the carrier with adapters."""

    base: Path
    merged: Path
    carrier: Path
    adapters: tuple[Path, ...]
    options: dict[str, Any]


def models(base: Path, folder: Path) -> Models:
    """A carrier, adapters of one recipe at several strengths, and the first of them merged.

    They are built unless they are there.
    """

    def quiet(_step: str, _done: int, _total: int) -> None:
        """No progress is shown."""

    merged = folder / "merged"
    adapters = tuple(folder / f"adapter-{number}" for number in range(EDITS))
    if not (folder / "carrier").is_dir():
        build_carrier(
            str(base),
            None,
            [13],
            output=folder / "carrier",
            total_slots=None,
            hard_link=True,
            progress=quiet,
        )
    carrier = Carrier.open(folder / "carrier")
    for number, adapter in enumerate(adapters):
        if adapter.is_dir():
            continue
        edits = f"[{{feature: 0, kind: clamp, to: {number + 1}}}, {{feature: 1, kind: ablate}}]"
        text = f"base_model: {base}\nsplices:\n  - sae: {{path: {SAE}}}\n    edits: {edits}\n"
        recipe = parse_recipe(f"{text}calibration: {{tokens: 4000}}\n", folder=folder)
        build_adapter(
            recipe,
            carrier,
            output=adapter,
            require_fidelity=None,
            measure=False,
            progress=quiet,
        )
    if not merged.is_dir():
        merge(carrier, adapters[0], output=merged, hard_link=True, progress=quiet)
    manifest = read_manifest(carrier.folder / MANIFEST)
    found = [find_adapter(adapter, manifest) for adapter in adapters]
    words = adapter_options(manifest, found, EngineKey.VLLM, None)
    modules = words[words.index("--lora-target-modules") + 1 : words.index("--lora-modules")]
    options = {
        "enable_lora": True,
        "max_loras": int(words[words.index("--max-loras") + 1]),
        "max_lora_rank": int(words[words.index("--max-lora-rank") + 1]),
        "lora_target_modules": list(modules),
    }
    return Models(base, merged, carrier.folder, adapters, options)


@dataclass(frozen=True)
class Started:
    """Every contender; the version of vLLM, and the bytes that it keeps for each adapter."""

    contenders: dict[str, Ask]
    version: str
    bytes_each: float


def started(
    found: Models, arguments: argparse.Namespace, logs: Path, running: ExitStack
) -> Started:
    """Start every engine, as many at once as there are cores."""
    served: dict[str, tuple[Path, dict[str, Any]]] = {
        MIXED: (found.carrier, found.options),
        "base": (found.base, {}),
        MERGED: (found.merged, {}),
        OFF: (found.carrier, {}),
    }

    def start(name: str) -> EngineProcess:
        folder, more = served[name]
        return start_vllm(
            arguments.vllm,
            folder,
            dtype=arguments.dtype,
            max_num_seqs=EDITS,
            length=288,
            threads=arguments.threads,
            log=logs / name.replace(" ", "-"),
            more=more,
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        processes = dict(zip(served, pool.map(start, served), strict=True))
    for process in processes.values():
        running.enter_context(process)
    with_lora = processes[MIXED]

    def ask(adapters: list[Path | None], prompts: list[list[int]], new_tokens: int) -> Answer:
        return with_lora.ask(prompts, new_tokens, adapters=adapters[: len(prompts)])

    contenders: dict[str, Ask] = {
        **{name: processes[name].ask for name in ("base", MERGED, OFF)},
        NONE: partial(ask, [None] * EDITS),
        ONE: partial(ask, [found.adapters[0]] * EDITS),
        MIXED: partial(ask, list(found.adapters)),
    }
    places = found.options["max_loras"]
    return Started(contenders, with_lora.version, with_lora.adapter_bytes / places)


def main() -> None:
    parser = session_options(__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="no session ends later")
    parser.add_argument("--models", type=Path, help="where models are kept")
    parser.add_argument("--print-only", action="store_true", help="keep no page")
    arguments = parser.parse_args()
    source, measurements = random.Random(0), Measurements()
    deadline = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.models or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        found = models(fetch_smollm2(), folder.resolve())
        longest = 0.0
        for _ in range(arguments.sessions):
            began = time.monotonic()
            if began + longest > deadline:
                break
            with ExitStack() as running:
                engines = started(found, arguments, Path(name), running)
                ready = time.monotonic()
                run_session(engines.contenders, arguments.rounds, source, measurements)
            longest = max(longest, time.monotonic() - began)
            text = document(measurements, arguments, engines, found)
            if not arguments.print_only:
                (RESULTS / "adapters.md").write_text(text)
            print(text, flush=True)
            print(
                f"session {measurements.sessions}: {ready - began:.0f} s to start, "
                f"{time.monotonic() - ready:.0f} s to ask",
                file=sys.stderr,
                flush=True,
            )


def document(
    measurements: Measurements, arguments: argparse.Namespace, engines: Started, found: Models
) -> str:
    """The page."""
    rows = [_row(measurements, name, load) for load in LOADS for name in engines.contenders]
    targets = [
        f"| {name} ÷ {other} | {load.name} | {target} | "
        f"{measurements.ratio(name, other, load).text(3)} |"
        for name, other, target in TARGETS
        for load in LOADS
    ]
    rank = found.options["max_lora_rank"]
    size = sum(path.stat().st_size for path in found.adapters[0].glob("adapter_*"))
    return "\n".join(
        [
            "# What edits as adapters cost to serve",
            "",
            f"{date.today()}, {machine()}; vLLM {engines.version}; SmolLM2-135M-Instruct in "
            f"{arguments.dtype}, {arguments.threads} thread(s) for each engine; "
            f"{measurements.rounds} rounds in {measurements.sessions} sessions. LoRA is confined "
            f"to the carrier's layer. Regenerate with `python benchmarks/adapters.py --rounds "
            f"{arguments.rounds}`.",
            "",
            "Throughput is tokens in a second of the engine's process on a core. Ratios are within "
            "a round: the median of a session's rounds, and the mean of that over sessions, each "
            "of which starts all engines anew. Intervals (95%) are by resampling sessions and the "
            f"rounds within. *Prefill*: {PREFILL}. *Decode*: {DECODE}.",
            "",
            "Two processes with the same model can differ by a fifth for as long as they live, so "
            "that one session says nothing of smaller differences between engines: the merged "
            "splice and the carrier without LoRA do the same work, and their ratio shows how much "
            "is chance. The three rows with LoRA on are of one process.",
            "",
            "| | load | tokens/s | ÷ merged splice | ÷ carrier, LoRA off | ÷ base |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            "## Against the targets",
            "",
            "| | load | target | measured |",
            "|---|---|---|---|",
            *targets,
            "",
            "## Memory",
            "",
            f"An adapter of these edits is a file of {size / 1000:,.0f} kB. vLLM keeps "
            f"{engines.bytes_each / 1000:,.0f} kB in the model for each place (`--max-loras`), "
            f"with room for rank {rank}, whether an adapter is in it or not.",
            "",
        ]
    )


def _row(measurements: Measurements, name: str, load: Load) -> str:
    ratios = (
        "1" if name == other else measurements.ratio(name, other, load).text(3)
        for other in (MERGED, OFF, "base")
    )
    cells = (name, load.name, f"{measurements.rate(name, load):,.0f}", *ratios)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
