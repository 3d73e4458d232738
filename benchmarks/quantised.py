"""What survives of an edit when the model is quantised, with and without its inserted layers.

Servers are emulated exactly as far as arithmetic goes: weights and, where the scheme has it,
activations are rounded to the values that the server computes with, products are summed in
float32, the bias is added, and the result is rounded to bfloat16. As in vLLM, maps that it fuses
(queries, keys and values; gate and up) share a scale where there is one per tensor, and embeddings
and the output head are left alone. A tensor of zeros is taken to stay one.

Against the float32 base with the exact hook, for each edit and scheme:

    floor       the quantised base with the exact hook in it
    all         the splice, inserted layers quantised with the rest
    kept        the splice, inserted layers left in bfloat16

A divergence can't tell whether an edit is there that does less than quantising the base. The
residual error can: how far from the edit is what the inserted layer adds to the stream that it
gets, over all edited tokens, ‖dh − dh_hook‖ / ‖dh_hook‖.

    python benchmarks/quantised.py [--tokens N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.smollm2 import fetch_smollm2
from hubsplice.building.build import build
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.fidelity.divergence import Readable, compare
from hubsplice.fidelity.inserted import InsertedAt
from hubsplice.fidelity.runs import head_weight, run_model
from hubsplice.fidelity.statistics import ratio_of_means
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.saved import INTERVENTION, load_intervention
from hubsplice.recipe.models import Fidelity
from hubsplice.recipe.reading import parse_recipe
from hubsplice.serving.requirements import edited_layers
from hubsplice.streams.model import Model, collect_streams, decoder_layers, hooked, loaded
from hubsplice.text.sequences import load_sequences
from hubsplice.text.tokenizer import load_tokenizer

SAE = Path(__file__).parents[1] / "examples" / "sae-smollm2-135m-l13"
# Features of the SAE: 0 outer space, 1 computers, 2 food.
EDITS = {
    "scale 8": (
        "[{feature: 0, kind: scale, factor: 8}, {feature: 1, kind: scale, factor: 8},"
        " {feature: 2, kind: scale, factor: 8}]"
    ),
    "clamp always": "[{feature: 0, kind: clamp, to: 5.6}]",
    "clamp where active, gated steer (jumps)": (
        "[{feature: 2, kind: clamp, to: 20, when: active},"
        " {feature: 1, kind: gated_steer, strength: 0.4 x norm}]"
    ),
}
E4M3 = torch.float8_e4m3fn
E4M3_MAX = torch.finfo(E4M3).max
GROUP = 64
FUSED = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")

Round = Callable[[Tensor], Tensor]


def to_e4m3(x: Tensor, amax: Tensor) -> Tensor:
    """x on the grid of e4m3, scaled so that `amax` is the grid's largest value."""
    scale = amax.float() / E4M3_MAX
    on_grid = (x.float() / scale).clamp(-E4M3_MAX, E4M3_MAX).to(E4M3).float()
    return torch.where(scale > 0, on_grid * scale, 0.0)


def to_integers(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """x on a grid of integers times `scale`."""
    return torch.where(scale > 0, (x.float() / scale).round().clamp(low, high) * scale, 0.0)


def tensor_e4m3(weight: Tensor) -> Tensor:
    return to_e4m3(weight, weight.abs().amax())


def channel_e4m3(weight: Tensor) -> Tensor:
    return to_e4m3(weight, weight.abs().amax(dim=-1, keepdim=True))


def token_e4m3(x: Tensor) -> Tensor:
    # A floor under the scale keeps tokens of zeros from dividing by zero.
    amax = x.abs().amax(dim=-1, keepdim=True).float()
    return to_e4m3(x, amax.clamp(min=1 / 512))


def channel_int8(weight: Tensor) -> Tensor:
    # As compressed-tensors has it: 255 steps between the two extremes.
    return to_integers(weight, weight.abs().amax(dim=-1, keepdim=True).float() / 127.5, -128, 127)


def token_int8(x: Tensor) -> Tensor:
    return to_integers(x, x.abs().amax(dim=-1, keepdim=True).float() / 127, -127, 127)


def group_int4(weight: Tensor) -> Tensor:
    # What GPTQ and AWQ round to, without what they do to choose better.
    groups = weight.reshape(len(weight), -1, GROUP)
    scale = groups.abs().amax(dim=-1, keepdim=True).float() / 7.5
    return to_integers(groups, scale, -8, 7).flatten(-2)


@dataclass(frozen=True)
class Scheme:
    """A way of quantising linear maps.

    Attributes:
        weights: rounds a weight.
        activations: rounds what goes into a map; None where that stays bfloat16.
        fused: whether maps that the server fuses share a scale.
    """

    weights: Round
    activations: Round | None
    fused: bool = False


SCHEMES: Mapping[str, Scheme | None] = {
    "none (bfloat16)": None,
    "fp8, per tensor": Scheme(tensor_e4m3, token_e4m3, fused=True),
    "fp8, per channel": Scheme(channel_e4m3, token_e4m3),
    "int8, W8A8 per channel": Scheme(channel_int8, token_int8),
    f"int4, groups of {GROUP}": Scheme(group_int4, None),
}


class Quantised(nn.Module):
    """A linear map with a rounded weight, shape [outputs, inputs], and rounded inputs."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activations: Round | None) -> None:
        super().__init__()
        self._dtype = torch.bfloat16
        self._activations = activations
        # Without rounded inputs the server multiplies in bfloat16, by a weight in bfloat16.
        self._weight = weight if activations is not None else weight.to(self._dtype)
        self._bias = bias if bias is None or activations is None else bias.float()

    def forward(self, x: Tensor) -> Tensor:
        if self._activations is not None:
            x = self._activations(x)
        return functional.linear(x, self._weight, self._bias).to(self._dtype)


@torch.no_grad()
def quantise(layer: nn.Module, scheme: Scheme) -> None:
    """Put rounded maps in the place of a decoder layer's own."""
    for parent in (*layer.children(),):
        maps = {n: m for n, m in parent.named_children() if isinstance(m, nn.Linear)}
        together = [[n for n in names if n in maps] for names in FUSED] if scheme.fused else []
        grouped = {name for names in together for name in names}
        for names in [*filter(None, together), *([name] for name in maps if name not in grouped)]:
            rounded = scheme.weights(torch.cat([maps[name].weight for name in names]))
            parts = torch.split(rounded, [maps[name].out_features for name in names])
            for name, part in zip(names, parts, strict=True):
                setattr(parent, name, Quantised(part, maps[name].bias, scheme.activations))


@contextmanager
def served(folder: Path, scheme: Scheme | None, kept: tuple[int, ...] = ()) -> Iterator[Model]:
    """A checkpoint as a server has it: all its layers quantised but those that are kept."""
    with loaded(folder, torch.bfloat16) as model:
        for index, layer in enumerate(decoder_layers(model)):
            if scheme is not None and index not in kept:
                quantise(layer, scheme)
        yield model


def read(model: Model, ids: Tensor, intervention: Intervention | None = None) -> Readable:
    """What a model's output head reads, behind the hook where there is one."""
    with hooked(model, intervention) if intervention is not None else nullcontext():
        run = run_model(model, ids, (), lambda _done, _total: None)
    return Readable(run.hidden, head_weight(model))


def read_splice(
    model: Model, ids: Tensor, index: int, intervention: Intervention
) -> tuple[Readable, float]:
    """The same for a splice, and the residual error of its inserted layer."""
    run = run_model(model, ids, (InsertedAt(index),), lambda _done, _total: None)
    ((site,), (layer,)) = intervention.sites, run.passes
    before = layer.before.float()
    wanted = site.delta(before)
    touched = wanted.norm(dim=-1) > 0
    missed = (layer.after.float() - before - wanted)[touched]
    return Readable(run.hidden, head_weight(model)), float(missed.norm() / wanted[touched].norm())


def sinks(model: Model, ids: Tensor, intervention: Intervention) -> Tensor:
    """The tokens that the edit leaves alone, and the first of each sequence; shape of `ids`."""
    (site,) = intervention.sites
    stream = collect_streams(model, ids, [site.place], lambda _done, _total: None)[site.place]
    found = site.is_sink(stream)
    found[:, 0] = True
    return found


def rows(base: Path, spliced: Mapping[str, Path], ids: Tensor) -> Iterator[dict[str, Any]]:
    """One row per edit and scheme."""
    edits = {name: load_intervention(path / INTERVENTION) for name, path in spliced.items()}
    with loaded(base, torch.float32) as model:
        exact = {name: read(model, ids, edit) for name, edit in edits.items()}
        plain = read(model, ids)
        scored = {name: ~sinks(model, ids, edit) for name, edit in edits.items()}
    for scheme_name, scheme in SCHEMES.items():
        with served(base, scheme) as model:
            floors = {name: read(model, ids, edit) for name, edit in edits.items()}
        for name, folder in spliced.items():
            (index,) = edited_layers(read_manifest(folder / MANIFEST))
            runs, residual = {"floor": floors[name]}, {}
            with served(folder, scheme) as model:
                runs["all"], residual["all"] = read_splice(model, ids, index, edits[name])
            if scheme is not None:
                with served(folder, scheme, (index,)) as model:
                    runs["kept"], residual["kept"] = read_splice(model, ids, index, edits[name])
            else:
                runs["effect"] = plain
            found = {key: c.divergence for key, c in compare(exact[name], runs).items()}
            row: dict[str, Any] = {"edit": name, "scheme": scheme_name}
            for key, divergence in found.items():
                row[key] = float(divergence[scored[name]].mean())
                if key in residual:
                    row[f"{key} residual"] = residual[key]
                    ratio = ratio_of_means(divergence, found["floor"], scored[name], seed=0)
                    assert ratio is not None
                    row[f"{key} ratio"] = ratio.model_dump()
            print(json.dumps(row), file=sys.stderr, flush=True)
            yield row


def table(results: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    effects = {row["edit"]: row["effect"] for row in results if "effect" in row}
    lines = [
        "| edit (its effect) | quantisation | floor | all, ratio [95%] | kept, ratio [95%] "
        "| all, residual error | kept, residual error |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results:
        cells = [
            "–" if f"{key} {what}" not in row else cell(row[f"{key} {what}"])
            for what, cell in (("ratio", ratio_cell), ("residual", "{:.1%}".format))
            for key in ("all", "kept")
        ]
        edit = f"{row['edit']} ({effects[row['edit']]:.3g})"
        lines.append(f"| {edit} | {row['scheme']} | {row['floor']:.3g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio_cell(ratio: Mapping[str, float]) -> str:
    return f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def make(base: Path, folder: Path) -> dict[str, Path]:
    """Every edit as a spliced checkpoint."""
    made = {}
    for number, (name, edits) in enumerate(EDITS.items()):
        text = (
            f"base_model: {base}\nsplices: [{{sae: {{path: {SAE}}}, edits: {edits}}}]\n"
            "calibration: {tokens: 6144}\n"
        )
        output = folder / f"edit-{number}"
        build(
            parse_recipe(text, folder=folder),
            output=output,
            require_fidelity=None,
            measure=False,
            hard_link=False,
            progress=lambda _step, _done, _total: None,
        )
        made[name] = output
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    base = fetch_smollm2()
    text = load_sequences(
        Fidelity(tokens=arguments.tokens), load_tokenizer(base), seed=0, part="held-out"
    )
    with TemporaryDirectory() as folder:
        results = list(rows(base, make(base, Path(folder)), text.ids))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
    print(
        f"{date.today()}, {platform.machine()}, torch {torch.__version__}; SmolLM2-135M-Instruct, "
        f"{text.ids.numel()} held-out tokens. KL in nats per token against the float32 base with "
        f"the exact hook.\n\n{table(results)}"
    )


if __name__ == "__main__":
    main()
