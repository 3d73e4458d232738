"""Edits under conditions: what the two inserted layers get right, on text that they never saw.

One feature is edited where another one is active, both of one SAE. The two layers are computed in
memory, as the family's compiled layers say; the rest of the base is not run.

    python benchmarks/conditions.py MODEL --sae FOLDER --layer 13 --pairs 448:526 448:510

prints one line for each pair, edit and precision: on how many tokens the edit acts, how far the
change of the stream is from the edit there (relative to it, root mean square), the same of the hook
in that precision, and what the layers change elsewhere, as a share of the noise that the precision
has put into the stream by then.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.compiling.conditional import compiled
from hubsplice.families.architecture import architecture_of
from hubsplice.features.extract import extract_feature
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import load_sae
from hubsplice.features.sae_config import find_sae
from hubsplice.intervention.condition import Condition, GateReadOut
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site, Term
from hubsplice.recipe.models import TextSource
from hubsplice.streams.calibration import SiteActivations, median_norm, stream_at
from hubsplice.streams.model import loaded
from hubsplice.text.sequences import load_sequences
from hubsplice.text.tokenizer import load_tokenizer

PRECISIONS = (torch.bfloat16, torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--sae", type=Path, required=True)
    parser.add_argument("--layer", type=int, required=True)
    parser.add_argument("--pairs", nargs="+", required=True, metavar="EDITED:CONDITION")
    parser.add_argument("--clamp", type=float, default=8.0)
    parser.add_argument("--tokens", type=int, default=6000)
    options = parser.parse_args()
    place = Place(options.layer)
    seen = streams(options.model, place, options.tokens, "calibration")
    fresh = streams(options.model, place, options.tokens, "held-out")
    base = architecture_of(BaseConfig.open(options.model).config)
    sae = load_sae(find_sae(SaeSource(path=options.sae)))
    norm = median_norm(seen[torch.float32])
    for pair in options.pairs:
        edited, gate = (extract_feature(sae, int(i), None) for i in pair.split(":"))
        condition = Condition((GateReadOut(gate.encoder, gate.bias, gate.threshold),), 1)
        off = edited.activation.scaled(-1.0)
        for kind, function in (
            ("ablate", off),
            (f"clamp to {options.clamp:g}", off + PiecewiseLinear.constant(options.clamp)),
        ):
            term = Term(
                kind,
                edited.encoder,
                edited.bias,
                function,
                edited.decoder,
                condition=condition,
            )
            site = Site(options.layer, (term,), 5 * norm)
            for dtype in PRECISIONS:
                activations = SiteActivations(seen[torch.float32], seen[dtype], norm, base.norm_eps)
                layer = compiled(base, site, activations, dtype)
                found = [layer(part, base.norm_eps) for part in torch.split(fresh[dtype], 1024)]
                figures = measured(site, fresh[torch.float32], fresh[dtype], torch.cat(found))
                print(f"{pair} {kind:12s} {str(dtype)[6:]:9s} {figures}", flush=True)


def streams(model: Path, place: Place, tokens: int, part: str) -> dict[torch.dtype, Tensor]:
    """The stream at a place in each precision, shape [tokens, d]."""
    source = TextSource(tokens=tokens, sequence_length=256)
    text = load_sequences(source, load_tokenizer(model), seed=0, part=part)
    found = {}
    for dtype in PRECISIONS:
        with loaded(model, dtype) as served:
            h = stream_at(served, text.ids, [place], Intervention(()), lambda *_: None)[place]
        found[dtype] = h[text.is_text.flatten()]
    return found


def measured(site: Site, reference: Tensor, before: Tensor, after: Tensor) -> str:
    """The figures of one layer; tokens at which the two precisions have parted are left out."""
    noise = (before.float() - reference).norm(dim=-1)
    kept = (noise <= 0.1 * reference.norm(dim=-1)) & ~site.is_sink(reference)
    wanted = site.delta(before.float())
    made, hook = after.float() - before.float(), site.edit(before).float() - before.float()
    acts = (wanted.abs().sum(dim=-1) > 0) & kept
    idle = ~acts & kept
    size = wanted[acts].norm()
    error, of_hook = ((change - wanted)[acts].norm() / size for change in (made, hook))
    elsewhere = made[idle].norm() / noise[idle].norm().clamp(min=1e-9)
    share = f"{elsewhere:.1%}" if before.dtype is not torch.float32 else "-"
    return (
        f"acts on {int(acts.sum())} of {int(kept.sum())}; error {error:.2%}, hook {of_hook:.2%}; "
        f"elsewhere {share} of the noise"
    )


if __name__ == "__main__":
    main()
