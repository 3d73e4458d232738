"""One rare feature at a time: what the inserted layer gets right where the feature is active.

Features are drawn over decades of firing rate, from 1 token in 10 to 1 in 10,000 of text that
calibration never saw. Each is edited alone, in each of four ways, and measured on sequences in
which it is active and on a few in which it isn't. The base's layers up to the site run once; for
every edit, the rest of the base runs behind the hook and behind the inserted layer. The inserted
layer is computed in memory as the family's compiled layer says, which the tests hold against
transformers' own decoder layer; no checkpoint is written.

    python benchmarks/rare_features.py MODEL --sae FOLDER --layer 13 --name "SmolLM2, JumpReLU"

With `--adapter` every edit is measured as an adapter on a carrier as well, under a name of its own,
on the same text.

Every figure is kept under results/ as soon as it is there. A run that was stopped goes on where it
stopped, given the same arguments. Without `--sae` nothing is measured, and the page is made of the
figures that were kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.edit_kinds import keep_rest, likeliest, processor, rest
from benchmarks.in_slots import compile_forms
from hubsplice.checkpoint.base import BaseConfig
from hubsplice.families.architecture import Architecture, architecture_of
from hubsplice.features.extract import extract_feature
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import LoadedSae, load_sae
from hubsplice.fidelity.divergence import Comparison, Readable, compare
from hubsplice.fidelity.evidence import EditEvidence, SiteStreams, site_evidence
from hubsplice.fidelity.inserted import InsertedAt
from hubsplice.fidelity.report import EditFidelity, GroupFidelity, PrecisionFidelity
from hubsplice.fidelity.runs import LayerPass, head_weight, logit_scale
from hubsplice.fidelity.sites import site_fidelity
from hubsplice.fidelity.statistics import distribution, ratio_of_means
from hubsplice.fidelity.verdict import judged
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site, Term
from hubsplice.recipe.models import Calibration, Fidelity
from hubsplice.streams.calibration import SiteActivations, median_norm
from hubsplice.streams.model import Model, collect_streams, loaded
from hubsplice.text.sequences import load_sequences
from hubsplice.text.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results"
KEPT, PAGE = RESULTS / "rare_features.jsonl", RESULTS / "rare_features.md"
CACHE = Path(__file__).parent.parent / ".cache" / "rare_features"
EXACT, COARSE = torch.float32, torch.bfloat16
KINDS = ("ablate", "scale -2", "clamp where active", "gated steer")
SINKS = 5.0
# Sequences are taken until a feature has been active so often in so many of them.
ENOUGH_TOKENS, ENOUGH_SEQUENCES, IDLE_SEQUENCES = 60, 8, 3


@dataclass(frozen=True, eq=False)
class Chosen:
    """One feature and the text that it is measured on.

    Attributes:
        index: of the feature.
        rate: of the tokens of the scanned text at which it is active.
        ids: token ids, shape [sequences, length].
        streams: at the site, by precision, shape [sequences, length, d].
    """

    index: int
    rate: float
    ids: Tensor
    streams: dict[torch.dtype, Tensor]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything of one SAE that its edits share.

    Attributes:
        calibration: the stream at the site, by precision, shape [tokens, d].
        norm: its median norm.
        chosen: the features.
        scanned: how many tokens they were chosen on.
    """

    calibration: dict[torch.dtype, Tensor]
    norm: float
    chosen: list[Chosen]
    scanned: int


def no_progress(_done: int, _total: int) -> None:
    """Nobody is told."""


def active(sae: LoadedSae, h: Tensor) -> Tensor:
    """Where each feature is active on h [tokens, d], shape [tokens, features]."""
    with torch.no_grad():
        return torch.cat([sae.module.encode(part) > 0 for part in torch.split(h, 4096)])


def scan(
    model: Model, sae: LoadedSae, place: Place, ids: Tensor, norm: float
) -> tuple[Tensor, int]:
    """On how many tokens of each sequence each feature is active, and how many tokens counted.

    The counts have shape [sequences, features]. First tokens and sinks don't count.
    """
    counts, tokens = [], 0
    for some in torch.split(ids, 64):
        h = collect_streams(model, some, [place], no_progress)[place]
        scored = h.norm(dim=-1) <= SINKS * norm
        scored[:, 0] = False
        fires = active(sae, h.flatten(end_dim=1)).reshape(*some.shape, -1) & scored[..., None]
        counts.append(fires.sum(dim=1).to(torch.int16))
        tokens += int(scored.sum())
        print(f"scanned {tokens:,} tokens", end="\r", file=sys.stderr, flush=True)
    return torch.cat(counts), tokens


def drawn(counts: Tensor, tokens: int, wanted: int, seed: int) -> list[int]:
    """Features over decades of firing rate, the rarest last; `counts` as `scan` gives them."""
    draw = random.Random(seed)
    fires = counts.sum(dim=0, dtype=torch.int64).tolist()
    found: list[int] = []
    for step in range(wanted):
        rate = 0.1 * 1e-3 ** (step / max(1, wanted - 1))
        at = max(3.0, rate * tokens)
        free = [i for i, count in enumerate(fires) if count and i not in found]
        off = {i: abs(math.log(fires[i] / at)) for i in free}
        near = [i for i in free if off[i] <= 0.25] or sorted(free, key=off.__getitem__)[:1]
        found += draw.sample(near, min(1, len(near)))
    return found


def sequences_of(counts: Tensor, most: int, seed: int) -> list[int]:
    """Which sequences a feature is measured on, by its counts [sequences].

    Those in which it is active most often come first.
    """
    draw = random.Random(seed)
    order = list(range(len(counts)))
    draw.shuffle(order)
    busy = sorted((i for i in order if counts[i] > 0), key=lambda i: -int(counts[i]))
    taken: list[int] = []
    for i in busy[: most - IDLE_SEQUENCES]:
        enough = sum(int(counts[j]) for j in taken) >= ENOUGH_TOKENS
        if enough and len(taken) >= ENOUGH_SEQUENCES:
            break
        taken.append(i)
    return taken + [i for i in order if counts[i] == 0][:IDLE_SEQUENCES]


def prepare(arguments: argparse.Namespace, sae: LoadedSae) -> Prepared:
    """Scan the text, draw the features, and run the base up to the site; kept in the cache."""
    asked = (
        arguments.model.name,
        sae.module.W_enc.sum().item(),
        arguments.layer,
        arguments.features,
        arguments.scan,
        arguments.length,
        arguments.sequences,
        arguments.seed,
    )
    kept = CACHE / f"{hashlib.sha256(repr(asked).encode()).hexdigest()[:16]}.pt"
    if kept.is_file():
        found = torch.load(kept)
        return Prepared(**found | {"chosen": [Chosen(**c) for c in found["chosen"]]})
    tokenizer = load_tokenizer(arguments.model)
    fitted = load_sequences(Calibration(), tokenizer, seed=arguments.seed, part="calibration").ids
    source = Fidelity(tokens=arguments.scan, sequence_length=arguments.length)
    unseen = load_sequences(source, tokenizer, seed=arguments.seed, part="held-out").ids
    place = Place(arguments.layer)
    calibration: dict[torch.dtype, Tensor] = {}
    with loaded(arguments.model, EXACT) as model:
        h = collect_streams(model, fitted, [place], no_progress)[place].flatten(end_dim=1)
        calibration[EXACT], norm = h, median_norm(h)
        counts, tokens = scan(model, sae, place, unseen, norm)
        features = drawn(counts, tokens, arguments.features, arguments.seed)
        texts = [
            unseen[sequences_of(counts[:, i], arguments.sequences, arguments.seed)]
            for i in features
        ]
        exact = [collect_streams(model, ids, [place], no_progress)[place] for ids in texts]
    with loaded(arguments.model, COARSE) as model:
        h = collect_streams(model, fitted, [place], no_progress)[place].flatten(end_dim=1)
        calibration[COARSE] = h
        coarse = [collect_streams(model, ids, [place], no_progress)[place] for ids in texts]
    chosen = [
        Chosen(i, int(counts[:, i].sum()) / tokens, ids, {EXACT: wide, COARSE: narrow})
        for i, ids, wide, narrow in zip(features, texts, exact, coarse, strict=True)
    ]
    prepared = Prepared(calibration, norm, chosen, tokens)
    kept.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**vars(prepared), "chosen": [vars(c) for c in chosen]}, kept)
    return prepared


def edited(sae: LoadedSae, chosen: Chosen, prepared: Prepared, layer: int) -> dict[str, Site]:
    """One site per kind of edit of a feature."""
    feature = extract_feature(sae, chosen.index)
    h = torch.cat([prepared.calibration[EXACT], chosen.streams[EXACT].flatten(end_dim=1)])
    p = h[h.norm(dim=-1) <= SINKS * prepared.norm] @ feature.encoder + feature.bias
    largest = float(p.max())
    scale = 0.1 * prepared.norm / float(feature.decoder.norm())
    functions = {
        "ablate": feature.activation.scaled(-1.0),
        "scale -2": feature.activation.scaled(-3.0),
        "clamp where active": feature.active.scaled(largest / 2) + feature.activation.scaled(-1.0),
        "gated steer": feature.active.scaled(scale),
    }
    return {
        kind: Site(
            layer,
            (
                Term(
                    f"feature {chosen.index}: {kind}",
                    feature.encoder,
                    feature.bias,
                    function,
                    feature.decoder,
                    feature.normalization,
                ),
            ),
            SINKS * prepared.norm,
        )
        for kind, function in functions.items()
    }


@dataclass(frozen=True, eq=False)
class Behind:
    """The rest of the base behind the site, at both precisions, and what reads its end."""

    models: dict[torch.dtype, Model]
    architecture: Architecture
    vocabulary: Tensor

    def readable(self, hidden: Tensor, dtype: torch.dtype) -> Readable:
        """Last hidden states with the output embeddings of the likeliest tokens."""
        model = self.models[dtype]
        return Readable(hidden, head_weight(model)[self.vocabulary], logit_scale(model))


@dataclass(frozen=True, eq=False)
class Passed:
    """What one edit made of a text at one precision.

    Attributes:
        evidence: of the edit at its site.
        fidelity: judged.
        change: what the layer changes at every token, shape [tokens, d].
        wanted: what the exact edit changes there, same shape.
    """

    evidence: EditEvidence
    fidelity: PrecisionFidelity
    change: Tensor
    wanted: Tensor


def passed(
    site: Site,
    dtype: torch.dtype,
    streams: dict[torch.dtype, Tensor],
    after: Tensor,
    scored: Tensor,
    found: dict[str, Comparison],
) -> Passed:
    """One precision's figures.

    Args:
        site: the edit.
        dtype: the precision.
        streams: at the site, by precision, shape [sequences, length, d].
        after: what leaves the layer, shape [tokens, d].
        scored: which tokens count, shape [sequences, length].
        found: divergences from the float32 hook: of the base, of the splice, and in bfloat16 of
            the hook.
    """
    reference, before = (streams[d].flatten(end_dim=1) for d in (EXACT, dtype))
    hook = None if dtype is EXACT else before
    (evidence,) = site_evidence(site, SiteStreams(reference, hook, before, after), scored, seed=0)
    floor = found.get("hook")

    def group(tokens: Tensor) -> GroupFidelity | None:
        if not tokens.any():
            return None
        error = found["splice"].divergence
        return GroupFidelity(
            tokens=int(tokens.sum()),
            edit_effect=float(found["base"].divergence[tokens].mean()),
            noise_floor=None if floor is None else float(floor.divergence[tokens].mean()),
            splice_error=float(error[tokens].mean()),
            ratio=None
            if floor is None
            else ratio_of_means(error, floor.divergence, tokens, seed=0),
        )

    gates = torch.zeros(len(before), 0, dtype=torch.bool)
    seen = LayerPass(before, after, gates)
    edit = EditFidelity(
        label=evidence.label,
        layer=site.layer,
        site=evidence.site,
        acted=group(evidence.groups.acted),
        behind=group(evidence.groups.behind),
        elsewhere=group(evidence.groups.elsewhere),
    )
    precision = PrecisionFidelity(
        dtype=str(dtype).removeprefix("torch."),
        noise_floor=None if floor is None else distribution(floor.divergence[scored]),
        splice_error=distribution(found["splice"].divergence[scored]),
        ratio=None,
        clipped_ratio=None,
        effect_over_error=None,
        hook_top1_agreement=1.0,
        splice_top1_agreement=1.0,
        sites=(site_fidelity(site, InsertedAt(0), seen, reference, scored.flatten(), hook),),
        edits=(edit,),
    )
    made = after.float() - before.float()
    return Passed(evidence, judged(precision), made, site.delta(before))


def measure(
    site: Site,
    chosen: Chosen,
    prepared: Prepared,
    behind: Behind,
    base: Tensor,
    *,
    built: Site | None = None,
    form: str = "",
) -> dict[str, Any]:
    """Every figure of one edit.

    Args:
        site: the edit.
        chosen: its feature, and the text.
        prepared: what all edits share.
        behind: the rest of the base.
        base: the base's own last hidden states in float32.
        built: the edit that the layer is compiled for, where that is another one.
        form: "adapter" for a layer in a carrier's slots; nothing for a merged one.
    """
    streams, eps = chosen.streams, behind.architecture.norm_eps
    started = time.monotonic()
    layers = {
        dtype: compile_forms(
            behind.architecture,
            site if built is None else built,
            SiteActivations(
                prepared.calibration[EXACT], prepared.calibration[dtype], prepared.norm, eps
            ),
            dtype,
            adapter=bool(form),
        )[form]
        for dtype in (EXACT, COARSE)
    }
    compiled = time.monotonic() - started
    after = {dtype: layers[dtype](streams[dtype], eps) for dtype in layers}
    hidden = {
        (name, dtype): rest(behind.models[dtype], h, lambda x: x)
        for dtype in layers
        for name, h in (("hook", site.edit(streams[dtype])), ("splice", after[dtype]))
    }
    truth = behind.readable(hidden.pop(("hook", EXACT)), EXACT)
    others = {key: behind.readable(h, key[1]) for key, h in hidden.items()}
    others["base", EXACT] = behind.readable(base, EXACT)
    found = compare(truth, {f"{name} {dtype}": r for (name, dtype), r in others.items()})
    scored = ~site.is_sink(streams[EXACT])
    scored[:, 0] = False
    result = {
        dtype: passed(
            site,
            dtype,
            streams,
            after[dtype].flatten(end_dim=1),
            scored,
            {"base": found[f"base {EXACT}"]}
            | {
                name: found[f"{name} {dtype}"]
                for name in ("hook", "splice")
                if f"{name} {dtype}" in found
            },
        )
        for dtype in layers
    }
    exact, coarse = result[EXACT], result[COARSE]
    before = streams[COARSE].flatten(end_dim=1).float()
    hook = site.edit(streams[COARSE]).flatten(end_dim=1).float() - before
    counted = scored.flatten()
    acts = (coarse.wanted.norm(dim=-1) > 0) & counted
    idle = (exact.wanted.norm(dim=-1) == 0) & ~acts & counted
    noise = before - streams[EXACT].flatten(end_dim=1)
    own = float((hook - coarse.wanted)[acts].norm())
    site_figures, edit = coarse.evidence.site, coarse.fidelity.edits[0]
    return {
        "acted": site_figures.acted_tokens,
        "acted_sequences": site_figures.acted_sequences,
        "error_over_hook": dumped(site_figures.error_over_hook),
        "error_over_rounding": (
            float((coarse.change - coarse.wanted)[acts].norm()) / own if own else None
        ),
        "elsewhere_over_noise": float(coarse.change[idle].norm() / noise[idle].norm()),
        "elsewhere_over_noise_median": float(
            coarse.change[idle].norm(dim=-1).median() / noise[idle].norm(dim=-1).median()
        ),
        "residual_float32": exact.evidence.site.residual_error,
        "residual_bfloat16": site_figures.residual_error,
        "hook_residual_bfloat16": own / float(coarse.wanted[acts].norm()) if own else None,
        "strength": dumped(site_figures.strength),
        "hook_strength": dumped(site_figures.hook.strength if site_figures.hook else None),
        "strength_float32": dumped(exact.evidence.site.strength),
        "false_firing": site_figures.false_firing,
        "missed": site_figures.missed,
        "acted_ratio": dumped(edit.acted.ratio if edit.acted else None),
        "behind_ratio": dumped(edit.behind.ratio if edit.behind else None),
        "effect": edit.acted.edit_effect if edit.acted else None,
        "outcome": edit.outcome,
        "reason": edit.reason,
        "outcome_float32": exact.fidelity.edits[0].outcome,
        "reason_float32": exact.fidelity.edits[0].reason,
        "jump": any(kink.jump for term in site.terms for kink in term.function.kinks),
        "constants": {
            key: value
            for key, value in layers[COARSE].constants.items()
            if isinstance(value, (int, float, str))
        },
        "seconds": {"compile": compiled, "all": time.monotonic() - started},
    }


def dumped(record: Any) -> Any:
    """A figure with its interval, as JSON has it."""
    return None if record is None else record.model_dump()


@contextmanager
def behind_the_site(arguments: argparse.Namespace, prepared: Prepared) -> Iterator[Behind]:
    """The rest of the base, at both precisions."""
    architecture = architecture_of(BaseConfig.open(arguments.model).config)
    with loaded(arguments.model, EXACT) as exact, loaded(arguments.model, COARSE) as coarse:
        for model in (exact, coarse):
            keep_rest(model, arguments.layer)
        some = rest(exact, prepared.chosen[0].streams[EXACT], lambda x: x)
        vocabulary = likeliest(some, head_weight(exact), arguments.vocabulary)
        yield Behind({EXACT: exact, COARSE: coarse}, architecture, vocabulary)


def measured(arguments: argparse.Namespace, done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The figures of every edit that isn't done yet."""
    sae = load_sae(SaeSource(path=arguments.sae.absolute()))
    prepared = prepare(arguments, sae)
    kept = {(r["name"], r["feature"], r["kind"]) for r in done}
    chosen = prepared.chosen[: arguments.first] if arguments.first else prepared.chosen
    sites = {c.index: edited(sae, c, prepared, arguments.layer) for c in chosen}
    forms = ("", "adapter") if arguments.adapter else ("",)
    names = {form: f"{arguments.name}, {form}" if form else arguments.name for form in forms}
    left = [
        c
        for c in chosen
        if any((name, c.index, k) not in kept for name in names.values() for k in KINDS)
    ]
    if not left:
        return
    with behind_the_site(arguments, prepared) as behind:
        exact = behind.models[EXACT]
        for feature in left:
            base = rest(exact, feature.streams[EXACT], lambda x: x)
            for (kind, site), form in product(sites[feature.index].items(), forms):
                if (names[form], feature.index, kind) in kept:
                    continue
                yield {
                    "name": names[form],
                    "feature": feature.index,
                    "rate": feature.rate,
                    "kind": kind,
                    "tokens": feature.ids.numel(),
                    "scanned": prepared.scanned,
                    "vocabulary": len(behind.vocabulary),
                    "command": command_line(arguments),
                    "place": f"{date.today()}, PyTorch {torch.__version__}, "
                    f"{torch.get_num_threads()} thread(s) of {processor()}",
                    **measure(site, feature, prepared, behind, base, form=form),
                }


def command_line(arguments: argparse.Namespace) -> str:
    """What measures an SAE's features, without what names files of this machine."""
    return (
        f"python benchmarks/rare_features.py {arguments.model.name} --sae {arguments.sae.name} "
        f'--layer {arguments.layer} --name "{arguments.name}" --features {arguments.features} '
        f"--scan {arguments.scan} --length {arguments.length} --sequences {arguments.sequences} "
        f"--vocabulary {arguments.vocabulary} --seed {arguments.seed}"
        + (" --adapter" if arguments.adapter else "")
    )


def interval(value: dict[str, float] | None) -> str:
    """An estimate with its interval."""
    if value is None:
        return "–"
    return f"{value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{value:.2%}"


def number(value: float | None) -> str:
    """A ratio with two decimals."""
    return "–" if value is None else f"{value:.2f}"


HEADINGS = (
    "feature",
    "active on",
    "edit",
    "acted tokens",
    "strength [95%]",
    "hook's strength",
    "error ÷ hook's [95%]",
    "error ÷ rounding",
    "change elsewhere ÷ noise (medians)",
    "residual error, float32",
    "bfloat16 (hook's)",
    "ratio, acted [95%]",
    "ratio, behind [95%]",
    "outcome (float32)",
)


def row(r: dict[str, Any]) -> str:
    """One edit's figures as a row of Markdown."""
    cells = (
        str(r["feature"]),
        f"1 in {1 / r['rate']:,.0f}",
        r["kind"],
        f"{r['acted']} in {r['acted_sequences']}",
        interval(r["strength"]),
        number((r.get("hook_strength") or {}).get("value")),
        interval(r["error_over_hook"]),
        number(r["error_over_rounding"]),
        f"{share(r['elsewhere_over_noise'])} ({share(r.get('elsewhere_over_noise_median'))})",
        share(r["residual_float32"]),
        f"{share(r['residual_bfloat16'])} ({share(r['hook_residual_bfloat16'])})",
        interval(r["acted_ratio"]),
        interval(r["behind_ratio"]),
        f"{r['outcome']} ({r['outcome_float32']})",
    )
    return f"| {' | '.join(cells)} |"


def table(headings: tuple[str, ...], rows: list[str]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|", *rows]


def middle(values: list[float]) -> str:
    """The median and the largest of some ratios."""
    return f"{median(values):.2f}; {max(values):.2f}" if values else "–"


def decade(result: dict[str, Any]) -> str:
    """How often a feature is active, by powers of ten."""
    power = min(max(math.floor(-math.log10(result["rate"])), 1), 3)
    return f"1 in {10**power:,} to 1 in {10 ** (power + 1):,}"


def summary(
    results: list[dict[str, Any]], heading: str, group: Callable[[dict[str, Any]], str]
) -> list[str]:
    """One row for each group: median and worst."""
    rows = []
    for name in dict.fromkeys(map(group, results)):
        of_kind = [r for r in results if group(r) == name]
        outcomes = Counter(r["outcome"] for r in of_kind)
        cells = [
            name,
            str(len(of_kind)),
            middle([r["error_over_hook"]["value"] for r in of_kind if r["error_over_hook"]]),
            middle([r["error_over_rounding"] for r in of_kind if r["error_over_rounding"]]),
            *(
                "; ".join(f"{f(values):.2%}" for f in (median, max)) if values else "–"
                for values in (
                    [r[key] for r in of_kind if r[key] is not None]
                    for key in ("elsewhere_over_noise", "residual_float32")
                )
            ),
            middle([r["acted_ratio"]["value"] for r in of_kind if r["acted_ratio"]]),
            middle([r["behind_ratio"]["value"] for r in of_kind if r["behind_ratio"]]),
            ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    headings = (
        heading,
        "layers",
        "error ÷ hook's",
        "error ÷ rounding",
        "change elsewhere ÷ noise",
        "residual error, float32",
        "ratio, acted",
        "ratio, behind",
        "outcomes",
    )
    return table(headings, rows)


def page(results: list[dict[str, Any]]) -> str:
    """What results/ keeps: what was measured, when and where, and the figures."""
    adapters = any("--adapter" in r["command"] for r in results)
    lines = [
        f"# Single rare features{', merged and as adapters' if adapters else ''}",
        "",
        "Each row is one feature, edited alone in one way: ablated, scaled by -2, clamped where "
        "active at half of the largest activation seen, or steered along its decoder by 0.1 of "
        "the median norm where active. Features are drawn over decades of firing rate, from "
        "1 token in 10 to 1 in 10,000. Each is measured in bfloat16 and float32 on sequences of "
        "held-out text, those in which it is active most often first, and on a few in which it is "
        "not. Calibration and held-out text share no document, and nothing was chosen on what is "
        "measured but the features and the height of the clamp.",
        "",
        "The inserted layer is computed in memory, by the compiled layer's own arithmetic, between "
        "transformers' layers; no checkpoint is written. Weights of SmolLM2 and Gemma here are "
        "de-quantised from 4-bit GGUF files. Divergences are among the likeliest tokens of the "
        "vocabulary alone. First tokens and attention sinks are not scored.",
        "",
        "- **hook's strength**: what rounding leaves of the edit in the bfloat16 hook. Where that "
        "is not 1, no layer can make the edit at this precision, and it is not shown.",
        "- **error ÷ hook's**: the layer's distance from the change of the float32 hook in its own "
        "stream, as a multiple of the bfloat16 hook's own. Both err where the served stream "
        "passes a threshold that the float32 one does not.",
        "- **error ÷ rounding**: the distance from what the exact edit makes of the stream that "
        "the layer reads, as a multiple of the bfloat16 hook's own, which is rounding alone. A "
        "jump is a steep ramp in weights, and tokens on it count here.",
        "- **change elsewhere ÷ noise**: what the layer changes where the edit doesn't act, over "
        "what bfloat16 has put into the stream there already; root mean squares. A few tokens on "
        "the ramp of a jump can make most of it, which medians don't see.",
        "- **ratio**: splice error over noise floor at the logits, where the edit acts and behind.",
        "- The two summaries, by kind of edit and by decade of firing rate, give the median and "
        "the largest.",
        "",
        "See [how faithful](../../docs/fidelity.md) for the outcomes.",
    ]
    for name in dict.fromkeys(r["name"] for r in results):
        mine = [r for r in results if r["name"] == name]
        mine.sort(key=lambda r: (-r["rate"], r["feature"], KINDS.index(r["kind"])))
        lines += [
            "",
            f"## {name}",
            "",
            *(f"    {command}" for command in dict.fromkeys(r["command"] for r in mine)),
            "",
            f"{mine[0]['scanned']:,} tokens scanned; measured on "
            f"{' and on '.join(dict.fromkeys(r['place'] for r in mine))}; among "
            f"{mine[0]['vocabulary']:,} tokens of the vocabulary.",
            "",
            *summary(mine, "edit", lambda r: str(r["kind"])),
            "",
            *summary(mine, "active on", decade),
            "",
            *table(HEADINGS, [row(r) for r in mine]),
        ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--sae", type=Path)
    parser.add_argument("--layer", type=int, default=13)
    parser.add_argument("--name", help="What the page calls this SAE.")
    parser.add_argument("--adapter", action="store_true", help="As an adapter as well.")
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--first", type=int, help="Measure the first few of them alone.")
    parser.add_argument("--scan", type=int, default=200_000, help="Tokens to draw features on.")
    parser.add_argument("--length", type=int, default=64, help="Tokens of a sequence.")
    parser.add_argument("--sequences", type=int, default=28, help="The most for one feature.")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, default=KEPT, help="Where figures are kept.")
    parser.add_argument("--output", type=Path, default=PAGE, help="Where to write the page.")
    arguments = parser.parse_args()
    if (arguments.sae is None) != (arguments.model is None):
        parser.error("a model and an SAE belong together")
    arguments.name = arguments.name or (arguments.sae and arguments.sae.name)
    lines = arguments.kept.read_text().splitlines() if arguments.kept.is_file() else []
    results: list[dict[str, Any]] = [json.loads(line) for line in lines]
    # A run that is told to end leaves the page of what it has, as one that is interrupted does.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    try:
        if arguments.sae is not None:
            for result in measured(arguments, list(results)):
                results.append(result)
                with arguments.kept.open("a") as kept:
                    kept.write(json.dumps(result, allow_nan=False) + "\n")
                print(row(result), file=sys.stderr, flush=True)
    finally:
        if results:
            arguments.output.write_text(page(results))


if __name__ == "__main__":
    main()
