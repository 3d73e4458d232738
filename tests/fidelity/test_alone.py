"""The layers of a splice, taken out of their model, do what they do in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.families.architecture import architecture_of
from hubsplice.fidelity.alone import alone
from hubsplice.fidelity.inserted import watching
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Block, Place
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.calibration import SiteActivations, median_norm, stream_at
from hubsplice.streams.model import loaded
from tests.families.variants import GATED, VARIANTS, Variant, save_tiny
from tests.fidelity.compiled import spliced

Splice = Callable[..., Path]

LLAMA = Variant("llama", {"intermediate_size": 192})
CARRYING = Variant("granite", GATED | {"residual_multiplier": 0.22})
"""Its own attention adds the constant of an edit behind it."""

CASES = [
    *((variant, Place(1)) for variant in (LLAMA, *VARIANTS)),
    *((variant, Place(1, Block.ATTENTION)) for variant in (LLAMA, CARRYING, Variant("gpt2"))),
]


def edited(folder: Path, place: Place, ids: Tensor) -> tuple[Site, SiteActivations]:
    """Two features that are active on half of the tokens, ablated."""
    with loaded(folder, torch.float32) as model:
        h = stream_at(model, ids, [place], Intervention(()), lambda *_: None)[place]
    eps = architecture_of(BaseConfig.open(folder).config).norm_eps
    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(4, h.shape[1], generator=generator) / 8
    function = PiecewiseLinear.relu().scaled(-1.0)
    terms = tuple(
        Term(f"feature {i}", axes[i], -float((h @ axes[i]).median()), function, axes[i + 2])
        for i in range(2)
    )
    site = Site(place.layer, terms, 5 * median_norm(h), place.block)
    return site, SiteActivations(h, h, median_norm(h), eps)


@pytest.mark.parametrize(("variant", "place"), CASES, ids=lambda value: str(value))
def test_alone_a_splice_makes_of_a_stream_what_it_makes_in_the_model(
    tmp_path: Path, splice: Splice, variant: Variant, place: Place
) -> None:
    base = save_tiny(variant, tmp_path / "base", torch.float32)
    ids = torch.randint(3, 300, (6, 32), generator=torch.Generator().manual_seed(1))
    site, activations = edited(base, place, ids)
    folder, at = spliced(splice, base, site, activations, torch.float32)
    seen: list[tuple[Tensor, Tensor]] = []
    with loaded(folder, torch.float32) as model, torch.inference_mode():
        with watching(model, at, lambda *pair: seen.append(pair)):
            model.base_model(ids, use_cache=False)
        ((before, after),) = seen
        before, after = before.flatten(end_dim=1), after.flatten(end_dim=1)
        with alone(model, at, ids[:2]) as made:
            # In another order, and not as many as were seen.
            order = torch.randperm(len(before), generator=torch.Generator().manual_seed(2))[:150]
            found = made(before[order])
        with watching(model, at, lambda *pair: seen.append(pair)):
            model.base_model(ids, use_cache=False)
    change = (after - before).norm()
    assert change > 0.01 * before.norm()
    assert (found - after[order]).norm() < 1e-4 * change
    # The model itself is as it was.
    assert torch.equal(seen[1][1].flatten(end_dim=1), after)
