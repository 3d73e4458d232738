"""Damaged files by the thousand: how many of them end in something else than a message.

    python -m benchmarks.damaged_files [--count 10000] [--first-seed 0] [PARSER ...]

Prints a row for each parser: how many files it read, refused with a message, and raised over.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conftest import _save_tiny_llama
from tests.fuzzing.parsers import Parser, parsers


def run(parser: Parser, seeds: range) -> tuple[Counter[str], dict[str, int]]:
    """The outcomes of one parser, and a seed for every place that something was raised from."""
    outcomes: Counter[str] = Counter()
    places: dict[str, int] = {}
    for seed in seeds:
        content = parser.damaged(seed)
        try:
            said = parser.try_to_read(content)
        except Exception as error:  # noqa: BLE001 - they are what is counted
            outcomes["raised"] += 1
            last = traceback.extract_tb(error.__traceback__)[-1]
            places.setdefault(
                f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"[:300], seed
            )
        else:
            outcomes["read" if said is None else "refused"] += 1
    return outcomes, places


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("parsers", nargs="*", metavar="PARSER")
    arguments.add_argument("--count", type=int, default=10_000)
    arguments.add_argument("--first-seed", type=int, default=0)
    given = arguments.parse_args()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = _save_tiny_llama(folder, name="good", num_hidden_layers=2)
        (folder / "damaged").mkdir()
        known = parsers(folder / "damaged", base)
        print("| parser | files | read | refused with a message | raised | seconds |")
        print("|---|---|---|---|---|---|")
        for name in given.parsers or known:
            start = time.monotonic()
            seeds = range(given.first_seed, given.first_seed + given.count)
            found, places = run(known[name], seeds)
            cells = [str(found[kind]) for kind in ("read", "refused", "raised")]
            seconds = f"{time.monotonic() - start:.0f}"
            print("|", " | ".join([name, str(given.count), *cells, seconds]), "|", flush=True)
            for place, seed in sorted(places.items()):
                print(f"  seed {seed}: {place}", flush=True)


if __name__ == "__main__":
    main()
