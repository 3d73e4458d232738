"""What edits as adapters cost to serve: against the merged splice, and against the base.

SmolLM2-135M-Instruct is loaded by vLLM as the base, as a merged splice, as a carrier without LoRA,
and as a carrier with LoRA, confined to the carrier's layer as `hubsplice serve` does it. Rounds ask
each of them the same, one at a time and every round in another order; of the carrier with LoRA, no
request of the batch has an adapter, all have the same one, or each of the eight has its own. Ratios
are within a round, and sessions start all engines anew.

    python benchmarks/adapters.py
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.processes import RESULTS, SAE, machine, start_vllm
from benchmarks.serving import LOADS, Ask, Measurements, run_session, session_options
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
NONE, ONE, MIXED = "LoRA on, no adapter", "one adapter", "eight adapters in a batch"


@dataclass(frozen=True)
class Models:
    """What is served: folders, and the arguments that have vLLM serve the carrier with adapters."""

    base: Path
    merged: Path
    carrier: Path
    adapters: tuple[Path, ...]
    options: dict[str, Any]


def models(base: Path, folder: Path) -> Models:
    """A carrier, adapters of one recipe at several strengths, and the first of them merged."""

    def quiet(_step: str, _done: int, _total: int) -> None:
        """No progress is shown."""

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
    adapters = []
    for number in range(EDITS):
        edits = f"[{{feature: 0, kind: clamp, to: {number + 1}}}, {{feature: 1, kind: ablate}}]"
        text = f"base_model: {base}\nsplices:\n  - sae: {{path: {SAE}}}\n    edits: {edits}\n"
        recipe = parse_recipe(f"{text}calibration: {{tokens: 4000}}\n", folder=folder)
        adapters.append(folder / f"adapter-{number}")
        build_adapter(
            recipe,
            carrier,
            output=adapters[-1],
            require_fidelity=None,
            measure=False,
            progress=quiet,
        )
    merge(carrier, adapters[0], output=folder / "merged", hard_link=True, progress=quiet)
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
    return Models(base, folder / "merged", carrier.folder, tuple(adapters), options)


def started(
    found: Models, arguments: argparse.Namespace, log: Path, running: ExitStack
) -> tuple[dict[str, Ask], str]:
    """Every contender, and the engine's version."""

    def start(folder: Path, more: dict[str, Any]) -> Any:
        return running.enter_context(
            start_vllm(
                arguments.vllm,
                folder,
                dtype=arguments.dtype,
                max_num_seqs=8,
                length=288,
                threads=arguments.threads,
                log=log,
                more=more,
            )
        )

    with_lora = start(found.carrier, found.options)

    def ask(adapters: list[Path | None], prompts: list[list[int]], new_tokens: int) -> Any:
        return with_lora.ask(prompts, new_tokens, adapters=adapters[: len(prompts)])

    contenders: dict[str, Ask] = {
        "base": start(found.base, {}).ask,
        "merged": start(found.merged, {}).ask,
        "carrier, LoRA off": start(found.carrier, {}).ask,
        NONE: partial(ask, [None] * EDITS),
        ONE: partial(ask, [found.adapters[0]] * EDITS),
        MIXED: partial(ask, list(found.adapters)),
    }
    return contenders, with_lora.version


def main() -> None:
    parser = session_options(__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="after which no session begins")
    parser.add_argument("--print-only", action="store_true", help="keep no page")
    arguments = parser.parse_args()
    source, measurements = random.Random(0), Measurements()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = models(fetch_smollm2(), folder)
        size = sum(path.stat().st_size for path in found.adapters[0].glob("adapter_*"))
        deadline = time.monotonic() + 60 * arguments.minutes
        version = ""
        while measurements_left(measurements, arguments.sessions, deadline):
            with ExitStack() as running:
                contenders, version = started(found, arguments, folder / "log", running)
                run_session(contenders, arguments.rounds, source, measurements)
            print(f"session {measurements.sessions}", file=sys.stderr, flush=True)
    text = document(measurements, arguments, version, size, found.options["max_lora_rank"])
    if not arguments.print_only:
        (RESULTS / "adapters.md").write_text(text)
    print(text)


def measurements_left(measurements: Measurements, sessions: int, deadline: float) -> bool:
    """Whether another session begins."""
    if not measurements.cpu:
        return True
    return measurements.sessions < sessions and time.monotonic() < deadline


def document(
    measurements: Measurements, arguments: argparse.Namespace, version: str, size: int, rank: int
) -> str:
    """The page."""
    names = list(dict.fromkeys(name for name, _ in measurements.cpu))
    rows = []
    for name in names:
        cells = [name]
        for load in LOADS:
            ratio = measurements.ratio(name, "merged", load)
            of_base = measurements.ratio(name, "base", load)
            cells += [
                f"{measurements.rate(name, load):.0f}",
                f"{ratio.value:.3f} ({ratio.low:.3f}–{ratio.high:.3f})",
                f"{of_base.value:.3f}",
            ]
        rows.append(f"| {' | '.join(cells)} |")
    heads = ["", *(h for load in LOADS for h in (f"{load.name}: tokens/s", "÷ merged", "÷ base"))]
    loads = "; ".join(f"{load.name}: {load}" for load in LOADS)
    return "\n".join(
        [
            "# What edits as adapters cost to serve",
            "",
            f"{date.today()}, {machine()}; vLLM {version}; SmolLM2-135M-Instruct in "
            f"{arguments.dtype}, {arguments.threads} thread(s) for each engine; "
            f"{measurements.rounds} rounds in {measurements.sessions} sessions. {loads}. LoRA is "
            f"confined to the carrier's layer, with room for rank {rank}; one adapter is a file of "
            f"{size / 1000:.0f} kB. Regenerate with `python benchmarks/adapters.py`.",
            "",
            "Ratios are of throughputs within a round, by core seconds: the median of a session's "
            "rounds, and the mean of that over sessions. Intervals (95%) are by resampling.",
            "",
            f"| {' | '.join(heads)} |",
            f"|{'---|' * len(heads)}",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
