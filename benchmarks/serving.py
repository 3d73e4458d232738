"""What a splice costs to serve: against the base, against a hook, and by the number of features.

SmolLM2-135M-Instruct, with one and with two inserted layers, is loaded by vLLM beside the base,
each in a process of its own, and so is the base by transformers, where the edit is a hook. Rounds
ask each of them the same, one at a time and every round in another order, and ratios are within a
round. Sessions start all of them anew, until the intervals are narrow enough. The edits are
ablations of random features: an inserted layer does the same arithmetic whatever its weights are.

    python benchmarks/serving.py
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.intervals import Estimate, mean_of_medians
from benchmarks.plots import bars
from benchmarks.processes import (
    RESULTS,
    VLLM_PYTHON,
    Answer,
    machine,
    splice,
    start_transformers,
    start_vllm,
)
from examples.smollm2 import fetch_smollm2

LAYERS = 30
WIDTH = 576
MOST_FEATURES = 1000
VOCABULARY = 49_152


@dataclass(frozen=True)
class Load:
    """What a round asks: so many prompts of one length, as one batch."""

    name: str
    prompts: int
    prompt_tokens: int
    new_tokens: int

    @property
    def tokens(self) -> int:
        """The tokens that are counted: those that are most of the work."""
        return self.prompts * (self.new_tokens if self.new_tokens > 1 else self.prompt_tokens)

    def draw(self, source: random.Random) -> list[list[int]]:
        """Prompts of random tokens, past the special ones."""
        return [
            [source.randrange(100, VOCABULARY) for _ in range(self.prompt_tokens)]
            for _ in range(self.prompts)
        ]

    def __str__(self) -> str:
        generated = f"{self.new_tokens} token{'s' if self.new_tokens > 1 else ''}"
        return f"{self.prompts} prompts of {self.prompt_tokens} tokens, {generated} generated"


PREFILL = Load("prefill", 4, 256, 1)
DECODE = Load("decode", 8, 16, 32)
LOADS = (PREFILL, DECODE)

Ask = Callable[[list[list[int]], int], Answer]


Seconds = dict[tuple[str, str], list[list[float]]]


@dataclass
class Measurements:
    """Seconds of every contender under every load: session by session, round by round."""

    wall: Seconds = field(default_factory=dict)
    cpu: Seconds = field(default_factory=dict)

    def begin_session(self, names: Iterable[str]) -> None:
        """What is added from now on belongs to engines that were started anew."""
        for name in names:
            for load in LOADS:
                self.wall.setdefault((name, load.name), []).append([])
                self.cpu.setdefault((name, load.name), []).append([])

    def add(self, name: str, load: Load, answer: Answer) -> None:
        """Add what a contender took in the present session."""
        self.wall[name, load.name][-1].append(answer.wall)
        self.cpu[name, load.name][-1].append(answer.cpu)

    def ratio(self, name: str, other: str, load: Load, *, clock: bool = False) -> Estimate:
        """The throughput of one contender as a multiple of another's."""
        seconds = self.wall if clock else self.cpu
        sessions = zip(seconds[other, load.name], seconds[name, load.name], strict=True)
        return mean_of_medians(
            [[theirs / ours for theirs, ours in zip(*session, strict=True)] for session in sessions]
        )

    def rate(self, name: str, load: Load) -> float:
        """Tokens in a second of a core, the median of all rounds."""
        return load.tokens / statistics.median(chain(*self.cpu[name, load.name]))

    @property
    def rounds(self) -> int:
        """How many there were in all sessions."""
        return sum(map(len, next(iter(self.cpu.values()))))

    @property
    def sessions(self) -> int:
        """How many there were."""
        return len(next(iter(self.cpu.values())))


def run_session(
    contenders: dict[str, Ask], rounds: int, source: random.Random, measurements: Measurements
) -> None:
    """Ask everyone the same, one at a time and every round in another order."""
    measurements.begin_session(contenders)
    for number in range(rounds + 1):
        for load in LOADS:
            prompts = load.draw(source)
            for name in source.sample(list(contenders), len(contenders)):
                answer = contenders[name](prompts, load.new_tokens)
                made = {len(sample) for samples in answer.tokens for sample in samples}
                assert made == {load.new_tokens}, (name, made)
                # The first round is for caches to be filled.
                if number > 0:
                    measurements.add(name, load, answer)


def random_sae(folder: Path, layer: int, features: int) -> Path:
    """An SAE of random features, in SAELens's format."""
    generator = torch.Generator().manual_seed(layer)
    directions = torch.randn(features, WIDTH, generator=generator)
    directions /= directions.norm(dim=-1, keepdim=True)
    weights = {
        "W_enc": directions.T.contiguous(),
        "b_enc": torch.full((features,), -4.0),
        "W_dec": directions * 0.1,
        "b_dec": torch.zeros(WIDTH),
    }
    config = {
        "architecture": "standard",
        "d_in": WIDTH,
        "d_sae": features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": f"blocks.{layer}.hook_resid_post"},
    }
    folder.mkdir()
    save_file(weights, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def models(base: Path, folder: Path) -> dict[str, Path]:
    """Spliced models: one or two layers of one feature, and one layer of more of them."""
    saes = {layer: random_sae(folder / f"sae-{layer}", layer, MOST_FEATURES) for layer in (13, 20)}

    def ablate(layer: int, features: int) -> str:
        edits = ", ".join(f"{{feature: {i}, kind: ablate}}" for i in range(features))
        return f"  - after_layer: {layer}\n    sae: {{path: {saes[layer]}}}\n    edits: [{edits}]\n"

    recipes = {
        "k = 1": ablate(13, 1),
        "k = 2": ablate(13, 1) + ablate(20, 1),
        "100 features": ablate(13, 100),
        "1,000 features": ablate(13, MOST_FEATURES),
    }
    return {
        name: splice(base, text, folder / f"spliced-{number}")
        for number, (name, text) in enumerate(recipes.items())
    }


def started(
    base: Path,
    spliced: dict[str, Path],
    arguments: argparse.Namespace,
    source: random.Random,
    log: Path,
    running: ExitStack,
) -> tuple[dict[str, Ask], dict[str, str]]:
    """Every contender, started in any order, and the versions of the engines."""
    contenders: dict[str, Ask] = {}
    versions: dict[str, str] = {}
    folders = {"base": base, **spliced}
    for name in source.sample(list(folders), len(folders)):
        engine = running.enter_context(
            start_vllm(
                arguments.vllm,
                folders[name],
                dtype=arguments.dtype,
                max_num_seqs=8,
                length=288,
                threads=arguments.threads,
                log=log,
            )
        )
        contenders[name] = engine.ask
        versions["vLLM"] = engine.version
    hooks = {name: spliced[name] for name in ("k = 1", "1,000 features")}
    engine = running.enter_context(
        start_transformers(base, hooks, dtype=arguments.dtype, threads=arguments.threads, log=log)
    )
    contenders["transformers"] = engine.ask
    for hook in hooks:
        contenders[f"hook, {hook}"] = partial(engine.ask, hook=hook)
    versions["transformers"] = engine.version
    return contenders, versions


def session_options(about: str) -> argparse.ArgumentParser:
    """The options of benchmarks that ask engines in rounds and sessions."""
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("--vllm", type=Path, default=VLLM_PYTHON, help="vLLM's interpreter")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1, help="of each engine")
    parser.add_argument("--rounds", type=int, default=6, help="in a session")
    parser.add_argument("--sessions", type=int, default=4, help="the fewest")
    return parser


def main() -> None:
    parser = session_options(__doc__)
    parser.add_argument("--spread", type=float, default=0.03, help="half an interval's width")
    parser.add_argument("--minutes", type=float, default=60, help="after which spread is ignored")
    arguments = parser.parse_args()
    base = fetch_smollm2()
    source = random.Random(0)
    measurements = Measurements()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spliced = models(base, folder)
        deadline = time.monotonic() + 60 * arguments.minutes
        while True:
            with ExitStack() as running:
                contenders, versions = started(
                    base, spliced, arguments, source, folder / "log", running
                )
                run_session(contenders, arguments.rounds, source, measurements)
            wide = max(
                measurements.ratio(*pair, load).half_width
                for pair in (*AGAINST_BASE, *AGAINST_ONE)
                for load in LOADS
            )
            print(f"session {measurements.sessions}: ±{wide:.1%}", file=sys.stderr, flush=True)
            if measurements.sessions >= arguments.sessions and (
                wide <= arguments.spread or time.monotonic() > deadline
            ):
                break
    text = _document(measurements, versions, arguments)
    (RESULTS / "serving.md").write_text(text)
    (RESULTS / "serving.json").write_text(_measurements(measurements))
    _plot(measurements)
    print(text)


AGAINST_BASE = (("k = 1", "base"), ("k = 2", "base"))
AGAINST_ONE = (("100 features", "k = 1"), ("1,000 features", "k = 1"))
AGAINST_HOOK = (
    ("k = 1", "hook, k = 1"),
    ("1,000 features", "hook, 1,000 features"),
    ("base", "transformers"),
)


def _measurements(measurements: Measurements) -> str:
    rows = [
        {
            "contender": name,
            "load": load,
            "core_seconds": [[round(x, 4) for x in session] for session in cpu],
            "seconds": [
                [round(x, 4) for x in session] for session in measurements.wall[name, load]
            ],
        }
        for (name, load), cpu in sorted(measurements.cpu.items())
    ]
    return "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"


def _plot(measurements: Measurements) -> None:
    labels = {
        "k = 1": "k = 1\n1 feature",
        "k = 2": "k = 2\n1 feature each",
        "100 features": "k = 1\n100 features",
        "1,000 features": "k = 1\n1,000 features",
    }
    groups = {
        label: {load.name: measurements.ratio(name, "base", load) for load in LOADS}
        for name, label in labels.items()
    }
    bars(
        RESULTS / "serving.svg",
        groups,
        ylabel="throughput ÷ the base's; dashed: n/(n+k)",
        lines=[LAYERS / (LAYERS + k) for k in (1, 2, 1, 1)],
    )


def _document(
    measurements: Measurements, versions: dict[str, str], arguments: argparse.Namespace
) -> str:
    engines = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(
        [
            "# What a splice costs to serve",
            "",
            f"{date.today()}, {machine()}; {engines}; SmolLM2-135M-Instruct ({LAYERS} layers) in "
            f"{arguments.dtype}, {arguments.threads} thread(s) for each engine; "
            f"{measurements.rounds} rounds in {measurements.sessions} sessions. Regenerate with "
            "`python benchmarks/serving.py`.",
            "",
            "Every figure is a ratio of throughputs within a round: the median of a session's "
            "rounds, and the mean of that over sessions, each of which starts all engines anew: "
            "two processes with the same model can differ by a fifth for as long as they live. "
            "Intervals (95%) are by resampling sessions and the rounds within. Throughput is "
            "tokens in a second of the engine's process on a core, which other work on the "
            "machine disturbs less than a clock; the ratio by the clock is beside it. Each round "
            f"draws other prompts of random tokens. *Prefill*: {PREFILL}. *Decode*: {DECODE}.",
            "",
            "## Against the base, in vLLM",
            "",
            "n base layers and k inserted ones do (n + k)/n of the work in the layers, and the "
            "same as the base in the output head, which decoding runs for every token. The target "
            "is a share of at least 0.95.",
            "",
            "| | load | tokens/s of base | spliced ÷ base | by the clock | n/(n+k) | share of "
            "n/(n+k) |",
            "|---|---|---|---|---|---|---|",
            *(_against_base(measurements, k, load) for k in (1, 2) for load in LOADS),
            "",
            "## By the number of features in one layer, in vLLM",
            "",
            "| | load | throughput ÷ that of 1 feature | by the clock |",
            "|---|---|---|---|",
            *(_pair(measurements, pair, load) for pair in AGAINST_ONE for load in LOADS),
            "",
            "## Spliced in vLLM against the same edit as a hook in transformers",
            "",
            "The hook is the library's exact one, in float32, on the base in `generate` with its "
            "cache; all prompts are one batch of equal lengths. The last rows are of the base in "
            "both engines without any edit, so that the engine's part can be told from the hook's.",
            "",
            "| in vLLM ÷ in transformers | load | throughput | by the clock |",
            "|---|---|---|---|",
            *(_pair(measurements, pair, load) for pair in AGAINST_HOOK for load in LOADS),
            "",
            "![Throughput against the base](serving.svg)",
            "",
        ]
    )


def _against_base(measurements: Measurements, k: int, load: Load) -> str:
    name = f"k = {k}"
    found, clock = (measurements.ratio(name, "base", load, clock=clock) for clock in (False, True))
    expected = LAYERS / (LAYERS + k)
    return (
        f"| {name} | {load.name} | {measurements.rate('base', load):,.0f} | {found.text(3)} | "
        f"{clock.text(2)} | {expected:.3f} | {found.value / expected:.3f} |"
    )


def _pair(measurements: Measurements, pair: tuple[str, str], load: Load) -> str:
    found, clock = (measurements.ratio(*pair, load, clock=clock) for clock in (False, True))
    return f"| {pair[0]} | {load.name} | {found.text(3)} | {clock.text(2)} |"


if __name__ == "__main__":
    main()
