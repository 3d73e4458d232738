"""Family by kind of edit by precision: every build here goes through a recipe, as a user's does.

Released models were available for Llama and for Gemma 3 (see `edit_kinds.py`), de-quantised from
4-bit GGUF files. Here all families are compared on models of four layers that this program trains
for a few seconds. The features of their SAEs lie along directions that the stream itself takes.
Such models tell families apart. They do not show what a family reaches at its real size, where the
noise floor is higher.

    python benchmarks/families.py
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from hubsplice.building.build import build
from hubsplice.errors import HubspliceError
from hubsplice.fidelity.report import FidelityReport
from hubsplice.recipe.reading import parse_recipe
from tests.building.conftest import save_sae
from tests.compiling.trained import LAYER, Trained
from tests.families.variants import GATED, TRAINED, WINDOWED, Variant
from tests.tiny_tokenizer import byte_tokenizer

RESULTS = Path(__file__).parent / "results/families.md"
MORE = [
    Variant("olmo3", GATED | {"sliding_window": 8, "intermediate_size": 256}),
    Variant("seed_oss", GATED | {"intermediate_size": 256, "head_dim": 16}),
    Variant("gemma2", GATED | WINDOWED | {"intermediate_size": 256}),
    Variant("gemma3_text", GATED | WINDOWED | {"intermediate_size": 256}),
]
FEATURES = range(16)
TEXT = """
calibration: {tokens: 12000, sequence_length: 64}
fidelity: {tokens: 8000, sequence_length: 64}
"""
KINDS = {
    "ablate, ReLU": ("standard", "kind: ablate"),
    "ablate, JumpReLU": ("jumprelu", "kind: ablate"),
    "scale 5, JumpReLU": ("jumprelu", "kind: scale, factor: 5"),
    "clamp where active, JumpReLU": ("jumprelu", "kind: clamp, to: 1, when: active"),
    "steer": ("standard", "kind: steer, strength: 0.1 x norm"),
}


def save_saes(trained: Trained, folder: Path) -> None:
    """A ReLU and a JumpReLU SAE whose features are active on a tenth of the tokens."""
    h = trained.streams(trained.calibration)[torch.float32]
    ordinary = h[h.norm(dim=1) <= 5 * h.norm(dim=1).median()]
    chosen = ordinary[torch.randperm(len(ordinary), generator=torch.Generator().manual_seed(4))]
    axes = functional.normalize(chosen[:192] - ordinary.mean(dim=0), dim=1)
    encoder, decoder = axes[:96], axes[96:]
    p = ordinary @ encoder.T
    shared: dict[str, Any] = {
        "W_enc": encoder.T.contiguous(),
        "W_dec": decoder.contiguous(),
        "b_dec": torch.zeros(h.shape[1]),
    }
    at, deviation = p.quantile(0.9, dim=0), p.std(dim=0)
    save_sae(folder / "standard", "standard", **shared, b_enc=-at)
    save_sae(
        folder / "jumprelu",
        "jumprelu",
        **shared,
        b_enc=0.5 * deviation - at,
        threshold=0.5 * deviation,
    )


def measured(base: Path, saes: Path, kind: str, output: Path) -> FidelityReport:
    sae, edit = KINDS[kind]
    edits = ", ".join(f"{{feature: {i}, {edit}}}" for i in FEATURES)
    recipe = (
        f"base_model: {base}\nsplices:\n"
        f"  - {{after_layer: {LAYER}, sae: {{path: {saes / sae}}}, edits: [{edits}]}}\n{TEXT}"
    )
    result = build(
        parse_recipe(recipe, folder=base),
        output=output,
        require_fidelity=None,
        measure=True,
        hard_link=False,
        progress=lambda _step, _done, _total: None,
    )
    assert result.report is not None
    return result.report


def row(variant: Variant, kind: str, report: FidelityReport) -> str:
    ratio = report.precisions[0].ratio
    exact = report.at("float32")
    over = exact.effect_over_error
    assert ratio is not None
    return (
        f"| {name(variant)} | {kind} | {report.edit_effect.mean:.3g} | "
        f"{'–' if over is None else f'{over:,.0f}'} | "
        f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] |"
    )


def name(variant: Variant) -> str:
    if variant.family != "gpt_neox":
        return variant.family
    parallel = variant.fields.get("use_parallel_residual", True)
    return f"gpt_neox, {'parallel' if parallel else 'sequential'}"


def rows(variant: Variant) -> list[str]:
    """Every kind of edit in one family."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        trained = Trained.make(variant, Path(folder))
        base = trained.folders[torch.bfloat16]
        byte_tokenizer().save_pretrained(base)
        save_saes(trained, Path(folder))
        for number, kind in enumerate(KINDS):
            try:
                report = measured(base, Path(folder), kind, Path(folder, f"built{number}"))
                found.append(row(variant, kind, report))
            except HubspliceError as error:
                found.append(f"| {name(variant)} | {kind} | – | – | refused: {error} |")
    return found


def main() -> None:
    lines = [
        "# Families",
        "",
        f"{date.today()}, {platform.machine()}, PyTorch {torch.__version__}; tiny models trained "
        "for a moment, 16 features at once, 8,000 held-out tokens. Regenerate with `make "
        "fidelity-table`.",
        "",
        "Streams of 64 channels behind two layers hold little noise, and little that a token's "
        "scale could be read from. So this table shows errors in a construction; what a family "
        "reaches at its real size is measured on real streams, in the other tables.",
        "",
        "| family | edit | edit effect (nat) | the same weights in float32: effect ÷ error | "
        "bfloat16: ratio [95%] |",
        "|---|---|---|---|---|",
    ]
    with ProcessPoolExecutor(
        os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        for found in pool.map(rows, [*TRAINED, *MORE]):
            lines += found
            print(*found, sep="\n", file=sys.stderr, flush=True)
    RESULTS.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
