"""Layers that are wrong, on a real model: what the verdict says of each.

The edits are those of `rare_features.py`, of a few of the same features. For each, layers are
compiled that are wrong in one way, and judged against the right edit on the same text. None may be
shown to be right.

    python benchmarks/wrong_layers.py MODEL --sae FOLDER --layer 13 --name "SmolLM2, JumpReLU"

Every outcome is kept under results/ as soon as it is there. A run that was stopped goes on where it
stopped, given the same arguments.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.edit_kinds import rest
from benchmarks.rare_features import (
    EXACT,
    KINDS,
    RESULTS,
    SINKS,
    Prepared,
    behind_the_site,
    edited,
    measure,
    prepare,
    table,
)
from hubsplice.features.extract import extract_feature
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import LoadedSae, load_sae
from hubsplice.intervention.site import Site, Term

KEPT, PAGE = RESULTS / "wrong_layers.jsonl", RESULTS / "wrong_layers.md"

Wrong = Callable[[Term], Term | None]


def wrong_layers(sae: LoadedSae, prepared: Prepared, other: int) -> dict[str, Wrong]:
    """What makes a term wrong, by name; None leaves it out.

    Args:
        sae: the SAE.
        prepared: the calibration streams.
        other: another feature, whose direction or place is taken.
    """
    another = extract_feature(sae, other)

    def scaled(factor: float) -> Wrong:
        return lambda term: replace(term, function=term.function.scaled(factor))

    def moved(deviations: float) -> Wrong:
        def shifted(term: Term) -> Term:
            h = prepared.calibration[EXACT]
            p = h[h.norm(dim=-1) <= SINKS * prepared.norm] @ term.encoder
            return replace(term, bias=term.bias - deviations * float(p.std()))

        return shifted

    return {
        "right": lambda term: term,
        "silenced": lambda _: None,
        "half": scaled(0.5),
        "1.1 times": scaled(1.1),
        "turned": scaled(-1.0),
        "another direction": lambda term: replace(term, direction=another.decoder),
        "another feature's tokens": lambda term: replace(
            term, encoder=another.encoder, bias=another.bias
        ),
        "threshold raised": moved(1.0),
        "threshold lowered": moved(-1.0),
    }


def outcomes(arguments: argparse.Namespace, done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The outcome of every layer that isn't judged yet."""
    sae = load_sae(SaeSource(path=arguments.sae.absolute()))
    prepared = prepare(arguments, sae)
    step = max(1, len(prepared.chosen) // arguments.judged)
    chosen = prepared.chosen[step // 2 :: step][: arguments.judged]
    kept = {(r["name"], r["feature"], r["kind"], r["layer"]) for r in done}
    with behind_the_site(arguments, prepared) as behind:
        for i, feature in enumerate(chosen):
            base = rest(behind.models[EXACT], feature.streams[EXACT], lambda x: x)
            other = chosen[i - 1].index
            sites = edited(sae, feature, prepared, arguments.layer)
            for kind, site in sites.items():
                (term,) = site.terms
                for name, wrong in wrong_layers(sae, prepared, other).items():
                    if (arguments.name, feature.index, kind, name) in kept:
                        continue
                    changed = wrong(term)
                    built = Site(site.layer, () if changed is None else (changed,), site.sink_norm)
                    found = measure(site, feature, prepared, behind, base, built=built)
                    yield {
                        "name": arguments.name,
                        "feature": feature.index,
                        "rate": feature.rate,
                        "kind": kind,
                        "layer": name,
                        **{k: found[k] for k in ("acted", "outcome", "reason", "strength")},
                        **{k: found[k] for k in ("outcome_float32", "reason_float32")},
                    }


def page(results: list[dict[str, Any]]) -> str:
    """What results/ keeps."""
    lines = [
        "# Wrong layers on a real model",
        "",
        "The verdict on inserted layers that are wrong in one way each. They are judged in "
        "bfloat16 on the text on which the right ones are judged in [single rare features]"
        "(rare_features.md), in the same way. The model's weights are de-quantised from a 4-bit "
        "GGUF file. *Another feature's tokens* is a layer that acts where another feature is "
        "active. A threshold is moved by one standard deviation of the feature's pre-activation.",
    ]
    for name in dict.fromkeys(r["name"] for r in results):
        mine = [r for r in results if r["name"] == name]
        features = sorted({(-r["rate"], r["feature"]) for r in mine})
        rows = []
        for layer in dict.fromkeys(r["layer"] for r in mine):
            cells = [layer]
            for kind in KINDS:
                of = Counter(r["outcome"] for r in mine if (r["layer"], r["kind"]) == (layer, kind))
                cells.append(", ".join(f"{n} {outcome}" for outcome, n in sorted(of.items())))
            rows.append(f"| {' | '.join(cells)} |")
        listed = ", ".join(f"{index} (1 in {-1 / rate:,.0f})" for rate, index in features)
        lines += ["", f"## {name}", "", f"Features: {listed}.", "", *table(("layer", *KINDS), rows)]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--sae", type=Path, required=True)
    parser.add_argument("--layer", type=int, default=13)
    parser.add_argument("--name", required=True, help="What the page calls this SAE.")
    parser.add_argument("--judged", type=int, default=4, help="How many of the features.")
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--scan", type=int, default=200_000)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=28)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lines = KEPT.read_text().splitlines() if KEPT.is_file() else []
    results: list[dict[str, Any]] = [json.loads(line) for line in lines]
    torch.set_grad_enabled(False)
    try:
        for result in outcomes(arguments, list(results)):
            results.append(result)
            with KEPT.open("a") as kept:
                kept.write(json.dumps(result, allow_nan=False) + "\n")
            told = (result[k] for k in ("feature", "kind", "layer", "outcome", "reason"))
            print(*told, sep=" | ", file=sys.stderr, flush=True)
    finally:
        if results:
            PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
