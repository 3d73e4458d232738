"""Every kind of edit on real SAEs: residual errors, and the ratio to the noise floor.

For each SAE, the features that contribute most to the stream are edited at once, in each of the
ways below, on text that calibration never saw. The base's layers up to the site run once per
precision; then, for every edit, the rest of the base runs behind the hook and behind the inserted
layer. The inserted layer is computed as the family's compiled layer says, which the tests hold
against transformers' own decoder layer.

    python benchmarks/edit_kinds.py MODEL --sae FOLDER [--sae FOLDER] [--tokens N]

With `--json` the figures are kept as soon as they are there, and a run that was stopped goes on
where it stopped, given the same arguments. `--also` puts kept figures in front of the table: edits
may be measured apart, for the sake of time or because a few tokens carry some means. Without
`--sae` nothing is measured, and the page made of kept figures alone. `--output` writes the page
that is kept under results/. With `--family` the layer is another family's, behind the same stream.
With `--adapter` every edit is measured as an adapter on a carrier too, beside the merged layer.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.in_slots import compile_forms
from hubsplice.checkpoint.base import BaseConfig
from hubsplice.families.architecture import Architecture, architecture_of
from hubsplice.features.extract import extract_feature
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import LoadedSae, load_sae
from hubsplice.fidelity.divergence import Readable, compare
from hubsplice.fidelity.measure import CLIP
from hubsplice.fidelity.runs import head_weight, logit_scale
from hubsplice.fidelity.statistics import ratio_of_means
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site, Term
from hubsplice.recipe.models import Calibration, Fidelity
from hubsplice.streams.calibration import SiteActivations, median_norm, stream_at
from hubsplice.streams.model import Model, decoder_layers, in_batches, loaded
from hubsplice.text.sequences import load_sequences
from hubsplice.text.tokenizer import load_tokenizer

NOTHING = Intervention(())
ADAPTER = ", adapter"
PL = PiecewiseLinear
NONE = PL.constant(0.0)


def edited(activation: PL, threshold: float, typical: float) -> dict[str, PL]:
    """φ of each kind of edit, for a feature of some typical activation where it is active."""
    return {
        "ablate": activation.scaled(-1.0),
        "scale 5": activation.scaled(4.0),
        "cap": activation.then(PL.relu(typical).scaled(-1.0)),
        "floor": activation.then(PL((typical / 3,), (-1.0, 0.0), (typical / 3, 0.0))),
        "clamp always": PL.constant(typical / 3) + activation.scaled(-1.0),
        "clamp where active": PL((threshold,), (0.0, -1.0), (0.0, typical)),
        "gated steer": PL.step(threshold, typical),
        "steer": PL.constant(typical / 3),
        "project out": PL.linear(-1.0),
    }


def sites(sae: LoadedSae, layer: int, h: Tensor, count: int) -> dict[str, Site]:
    """One site per kind of edit, of the features that contribute most on the stream h."""
    sink_norm = 5 * median_norm(h)
    ordinary = h[h.norm(dim=-1) <= sink_norm]
    with torch.no_grad():
        mean = torch.stack([sae.module.encode(p).mean(dim=0) for p in torch.split(ordinary, 1024)])
    share = mean.mean(dim=0) * sae.module.W_dec.norm(dim=-1)
    terms: dict[str, list[Term]] = {}
    for index in share.topk(count).indices.tolist():
        feature = extract_feature(sae, index)
        p = ordinary @ feature.encoder + feature.bias
        active = p > feature.threshold
        typical = float(p[active].mean())
        for name, function in edited(feature.activation, feature.threshold, typical).items():
            encoder, bias, direction = feature.encoder, feature.bias, feature.decoder
            if name == "project out":
                direction = direction / direction.norm()
                encoder, bias = direction, 0.0
            term = Term(f"feature {index}", encoder, bias, function, direction)
            terms.setdefault(name, []).append(term)
    return {name: Site(layer, tuple(made), sink_norm) for name, made in terms.items()}


def rest(model: Model, streams: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The last hidden states behind a change of the stream, [sequences, length, d]."""
    with torch.inference_mode():
        return torch.cat(
            [
                model.model(inputs_embeds=change(batch), use_cache=False).last_hidden_state.cpu()
                for batch in in_batches(model, streams.to(model.device))
            ]
        )


def keep_rest(model: Model, layer: int) -> None:
    """Leave the model the layers after `layer` alone, to be fed with streams."""
    kept = decoder_layers(model)[layer + 1 :]
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[layer + 1 :]
    for index, module in enumerate(kept):
        module.self_attn.layer_idx = index  # type: ignore[union-attr]
    model.model.layers = kept
    model.config.num_hidden_layers = len(kept)


def likeliest(hidden: Tensor, head: Tensor, count: int) -> Tensor:
    """The tokens of the vocabulary that are likeliest on average, [count]."""
    some = hidden.flatten(end_dim=1)[:: max(1, math.prod(hidden.shape[:2]) // 256)]
    return (some @ head.T).softmax(dim=-1).mean(dim=0).topk(min(count, len(head))).indices


def measure(
    site: Site,
    architecture: Architecture,
    calibration: dict[torch.dtype, Tensor],
    held_out: dict[torch.dtype, Tensor],
    models: dict[torch.dtype, Model],
    base: Tensor,
    vocabulary: Tensor,
    *,
    adapter: bool,
) -> dict[str, dict[str, Any]]:
    """Everything that is said of one edit, by the form that it is served in.

    `base` holds the base's own last hidden states.
    """
    exact, coarse = torch.float32, torch.bfloat16
    eps = architecture.norm_eps
    norm = median_norm(calibration[exact])
    layers = {
        dtype: compile_forms(
            architecture,
            site,
            SiteActivations(calibration[exact], calibration[dtype], norm, eps),
            dtype,
            adapter=adapter,
        )
        for dtype in (exact, coarse)
    }
    h = held_out[exact]
    sinks = site.is_sink(h)
    scored = ~sinks
    scored[:, 0] = False
    wanted = site.delta(h)
    touched = (wanted.norm(dim=-1) > 0) & scored
    runs = {
        "hook": rest(models[exact], h, site.edit),
        "base": base,
        "coarse hook": rest(models[coarse], held_out[coarse], site.edit),
    }
    outs = {(d, form): layer(held_out[d], eps) for d in layers for form, layer in layers[d].items()}
    for (dtype, form), out in outs.items():
        name = f"coarse splice {form}" if dtype is coarse else f"splice {form}"
        runs[name] = rest(models[dtype], out, lambda x: x)
    scale = logit_scale(models[exact])
    heads = {
        "hook": head_weight(models[exact])[vocabulary],
        "coarse": head_weight(models[coarse])[vocabulary],
    }
    found = compare(
        Readable(runs["hook"], heads["hook"], scale),
        {
            name: Readable(hidden, heads["coarse" if "coarse" in name else "hook"], scale)
            for name, hidden in runs.items()
            if name != "hook"
        },
    )
    floor = found["coarse hook"].divergence
    results: dict[str, dict[str, Any]] = {}
    for form in layers[exact]:
        error = found[f"coarse splice {form}"].divergence
        ratio = ratio_of_means(error, floor, scored, seed=0)
        clipped = ratio_of_means(error.clamp(max=CLIP), floor.clamp(max=CLIP), scored, seed=0)
        assert ratio is not None
        assert clipped is not None
        made = outs[exact, form] - h
        coarse_change = (outs[coarse, form] - held_out[coarse]).float()
        effect = found["base"].divergence[scored].mean()
        results[form] = {
            "effect": float(effect),
            "floor": float(floor[scored].mean()),
            "residual_error": float((made - wanted)[touched].norm() / wanted[touched].norm()),
            "effect_over_error": float(effect / found[f"splice {form}"].divergence[scored].mean()),
            "ratio": ratio.model_dump(),
            "clipped": clipped.model_dump(),
            "sink_change": max(
                float((change[sinks].norm(dim=-1) / h[sinks].norm(dim=-1)).max())
                for change in (made, coarse_change)
            ),
            "tokens": int(scored.sum()),
        }
    return results


HEADINGS = (
    "SAE",
    "edit",
    "edit effect (nat)",
    "float32: residual error",
    "float32: effect ÷ error",
    "bfloat16: ratio [95%]",
    "each token clipped at 0.05 nat",
    "noise floor (nat)",
    "change at sinks",
    "tokens",
)


def row(r: dict[str, Any]) -> str:
    """One edit's figures as a row of Markdown."""
    ratio, clipped = (
        f"{x['value']:.2f} [{x['low']:.2f}, {x['high']:.2f}]" for x in (r["ratio"], r["clipped"])
    )
    cells = (
        r["sae"],
        r["edit"],
        f"{r['effect']:.3g}",
        f"{r['residual_error']:.2%}",
        f"{r['effect_over_error']:,.0f}",
        ratio,
        clipped,
        f"{r['floor']:.2g}",
        f"{r['sink_change']:.1e}",
        f"{r['tokens']:,}",
    )
    return f"| {' | '.join(cells)} |"


def table(results: list[dict[str, Any]]) -> str:
    """All edits' figures in Markdown."""
    rule = "|---" * len(HEADINGS) + "|"
    return "\n".join([f"| {' | '.join(HEADINGS)} |", rule, *map(row, results)])


def page(arguments: argparse.Namespace, results: list[dict[str, Any]]) -> str:
    """What results/ keeps: what was measured, when and where, and the figures."""
    about, commands, places = (
        list(dict.fromkeys(r[key] for r in results)) for key in ("about", "command", "place")
    )
    return "\n".join(
        [
            f"# Every kind of edit on {arguments.model.name}"
            + (
                ", as other families would compute it"
                if any("--family" in c for c in commands)
                else ""
            )
            + (", merged and as adapters" if any("--adapter" in c for c in commands) else ""),
            "",
            f"The {arguments.features} features that contribute most after layer "
            f"{arguments.layer}, edited at once. {' '.join(about)} Held-out text "
            "that calibration never saw; attention sinks and first tokens are not scored; "
            f"divergences among the {arguments.vocabulary:,} likeliest tokens; intervals by "
            "resampling sequences.",
            "",
            *(f"    {command}" for command in commands),
            "",
            f"Measured {' and '.join(places)}.",
            "",
            table(results),
            "",
        ]
    )


def command_line(arguments: argparse.Namespace, sae: Path) -> str:
    """What measures an SAE's edits, without what names files of this machine."""
    return (
        f"python benchmarks/edit_kinds.py {arguments.model.name} --sae {sae.name} "
        f"--layer {arguments.layer} --vocabulary {arguments.vocabulary} "
        f"--tokens {arguments.tokens}"
        + (f" --family {arguments.family}" if arguments.family else "")
        + (" --adapter" if arguments.adapter else "")
    )


def processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def described(sae: LoadedSae, kind: str, h: Tensor) -> str:
    """An SAE in a sentence, with how many features are active on the stream h [tokens, d]."""
    with torch.no_grad():
        active = torch.cat([(sae.module.encode(p) > 0).sum(dim=-1) for p in torch.split(h, 1024)])
    return f"The {kind} SAE has {sae.module.cfg.d_sae:,} features (L0 {active.float().mean():.0f})."


def measured(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The figures of every edit that is asked for."""
    config = BaseConfig.open(arguments.model).config
    family = {"model_type": arguments.family} if arguments.family else {}
    architecture = architecture_of(config | family)
    tokenizer = load_tokenizer(arguments.model)
    fitted = load_sequences(Calibration(), tokenizer, seed=0, part="calibration")
    unseen = load_sequences(Fidelity(tokens=arguments.tokens), tokenizer, seed=0, part="held-out")
    calibration: dict[torch.dtype, Tensor] = {}
    held_out: dict[torch.dtype, Tensor] = {}
    kept = arguments.json
    results: list[dict[str, Any]] = json.loads(kept.read_text()) if kept and kept.is_file() else []
    with (
        loaded(arguments.model, torch.float32) as exact,
        loaded(arguments.model, torch.bfloat16) as coarse,
    ):
        models = {torch.float32: exact, torch.bfloat16: coarse}
        for dtype, model in models.items():
            for text, streams in ((fitted, calibration), (unseen, held_out)):
                place = Place(arguments.layer)
                found = stream_at(model, text.ids, [place], NOTHING, lambda _done, _total: None)[
                    place
                ]
                streams[dtype] = found
            held_out[dtype] = held_out[dtype].reshape(*unseen.ids.shape, -1)
            keep_rest(model, arguments.layer)

        base = rest(exact, held_out[torch.float32], lambda x: x)
        vocabulary = likeliest(base, head_weight(exact), arguments.vocabulary)

        for path in arguments.sae:
            sae = load_sae(SaeSource(path=path.absolute()))
            kind = {"standard": "ReLU", "jumprelu": "JumpReLU"}[sae.config.architecture]
            h = calibration[torch.float32]
            origin = {
                "sae": f"{kind}, as {arguments.family}" if arguments.family else kind,
                "about": described(sae, kind, h[h.norm(dim=-1) <= 5 * median_norm(h)]),
                "command": command_line(arguments, path),
                "place": f"on {date.today()} with PyTorch {torch.__version__} on "
                f"{torch.get_num_threads()} thread(s) of {processor()}",
            }
            made = sites(sae, arguments.layer, h, arguments.features)
            done = {r["edit"] for r in results if r["command"] == origin["command"]}
            for name in made if arguments.only is None else arguments.only:
                if name in done:
                    continue
                forms = measure(
                    made[name],
                    architecture,
                    calibration,
                    held_out,
                    models,
                    base,
                    vocabulary,
                    adapter=arguments.adapter,
                )
                for form, result in forms.items():
                    named = {"sae": f"{origin['sae']}, {form}"} if form else {}
                    results.append({**origin, **named, "edit": name, **result})
                    print(row(results[-1]), file=sys.stderr, flush=True)
                if kept:
                    kept.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--sae", type=Path, action="append", default=[])
    parser.add_argument("--layer", type=int, default=13)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=12_000)
    parser.add_argument(
        "--family",
        help="Compile for this family (a model_type) of the same sizes, and compute its layer "
        "behind the model's own, for families of which no weights are available.",
    )
    parser.add_argument(
        "--adapter",
        action="store_true",
        help="Measure every edit as an adapter on a carrier as well.",
    )
    parser.add_argument("--only", nargs="*", help="Names of edits.")
    parser.add_argument(
        "--vocabulary",
        type=int,
        default=2**20,
        help="Compare probabilities among so many of the likeliest tokens alone.",
    )
    parser.add_argument("--json", type=Path, help="Where to keep the figures.")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="Figures kept before.")
    parser.add_argument("--output", type=Path, help="Where to write the page.")
    arguments = parser.parse_args()
    results = measured(arguments) if arguments.sae else []
    for path in arguments.also:
        results = json.loads(path.read_text()) + results
    # What was measured last stands, and in one order.
    latest = {(r["sae"], r["edit"]): r for r in results}
    saes = dict.fromkeys(r["sae"] for r in results)
    families = dict.fromkeys(sae.removesuffix(ADAPTER) for sae in saes)
    order = [
        (sae + form, edit)
        for sae in families
        for edit in edited(NONE, 0.0, 1.0)
        for form in ("", ADAPTER)
    ]
    rendered = page(arguments, [latest[key] for key in order if key in latest])
    if arguments.output:
        arguments.output.write_text(rendered)
    print(rendered)


if __name__ == "__main__":
    main()
