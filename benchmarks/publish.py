"""What publishing sends: a first release, a changed strength, a rerun; predicted and counted.

SmolLM2-135M-Instruct in shards of 50 MB, spliced after layer 13 with the slice of a SAE that ships
with the project, is published on the protocol double of the Hub that the tests use, by Xet. Bytes
are those that the double received. The base is on the double too (as it is on the Hub), so that
whole shards are copied there; the rows without copies are of a base that is a local folder.

    python benchmarks/publish.py
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from examples.smollm2 import fetch_smollm2
from tests.loopback.client import LoopbackHub

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/publish.md"
SAE = ROOT / "examples/sae-smollm2-135m-l13"
RERUNS = 5


@dataclass(frozen=True)
class Row:
    """One publication: bytes of all files, predicted and received bytes, and seconds."""

    what: str
    total: int
    copied: int
    predicted: int
    received: int
    seconds: float


class Bench:
    """A Hub, a work folder, and what was measured."""

    def __init__(self, hub: LoopbackHub, folder: Path) -> None:
        self._hub = hub
        self._folder = folder
        self.rows: list[Row] = []

    def run(self, home: str, *arguments: str | Path) -> tuple[dict[str, Any], float]:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "hubsplice", *map(str, arguments)],
            env=self._hub.environment(self._folder / home) | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout), seconds

    def build(self, name: str, base: str, strength: float) -> Path:
        recipe = self._folder / f"{name}.yaml"
        recipe.write_text(
            f"base_model: {base}\n"
            f"splices: [{{sae: {{path: {SAE}}}, edits: [{{feature: 0, kind: clamp, "
            f"to: {strength}}}]}}]\n"
            "calibration: {tokens: 4000}\n"
        )
        self.run("home", "build", recipe, "--no-measure", "--json", "--output", self._folder / name)
        return self._folder / name

    def publish(self, what: str, folder: Path, repo: str, *, home: str = "home") -> None:
        self._hub.reset_counters()
        result, seconds = self.run(home, "publish", folder, "--repo-id", repo, "--json")
        plan = result["plan"]
        row = Row(
            what,
            plan["total_bytes"],
            sum(file["bytes"] for file in plan["copied"]),
            plan["upload_bytes"],
            self._hub.counters().content_bytes,
            seconds,
        )
        print(row, file=sys.stderr)
        self.rows.append(row)


def main() -> None:
    smollm2 = fetch_smollm2()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = _in_shards(smollm2, folder / "smollm2")
        with LoopbackHub(folder / "hub", "xet") as hub:
            bench = Bench(hub, folder)
            local = bench.build("local", str(base), 5.6)
            bench.publish("first release, base not on the Hub", local, "me/local")
            hub.seed("acme/smollm2", base)
            first = bench.build("first", "acme/smollm2", 5.6)
            second = bench.build("second", "acme/smollm2", 4.0)
            bench.publish("first release", first, "me/edited", home="fresh")
            bench.publish("changed strength, same machine", second, "me/edited", home="fresh")
            bench.publish("back to the first strength", first, "me/edited", home="fresh")
            third = bench.build("third", "acme/smollm2", 3.0)
            bench.publish("changed strength, new machine", third, "me/edited", home="other")
            reruns = [
                bench.run("fresh", "publish", third, "--repo-id", "me/edited", "--json")[1]
                for _ in range(RERUNS)
            ]
            bench.publish("rerun", third, "me/edited", home="fresh")
    RESULTS.write_text(_document(bench.rows, reruns))
    print(RESULTS.read_text())


def _in_shards(source: Path, target: Path) -> Path:
    import shutil

    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    model.save_pretrained(target, max_shard_size="50MB")
    for path in source.iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, target)
    return target


def _document(rows: list[Row], reruns: list[float]) -> str:
    lines = [
        "# What publishing sends",
        "",
        f"{date.today()}, {platform.machine()}, Python {platform.python_version()}; "
        "SmolLM2-135M-Instruct in shards of 50 MB, one inserted layer, by Xet to the tests' double "
        "of the Hub. Regenerate with `python benchmarks/publish.py`.",
        "",
        "| | all files | copied on the Hub | predicted | received | of all |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.what} | {row.total:,} | {row.copied:,} | {row.predicted:,} | {row.received:,} | "
        f"{row.received / row.total:.2%} |"
        for row in rows
    ]
    middle = statistics.median(reruns)
    lines += [
        "",
        "Predictions know what this machine has sent, and not what the Hub has from others: the "
        "first release sends less than predicted, since chunks of the base are there already. The "
        "double answers every question about a chunk; the Hub answers some.",
        "",
        f"A rerun with nothing to do: {middle:.1f} s (median of {len(reruns)}, "
        f"{min(reruns):.1f} to {max(reruns):.1f} s), which hashes all files and reads the "
        "repository's tree.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
