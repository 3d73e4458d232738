"""A manifest and a report whose pictures are worth looking at, built by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.fidelity.report import (
    Band,
    CurvePrecision,
    FidelityReport,
    GroupFidelity,
    ResponseCurve,
)
from tests.card.examples import manifest, report
from tests.fidelity.test_verdict import edit


def curve(label: str, wrong: float = 0.0) -> ResponseCurve:
    """An ablation above a threshold at 1; the layer's is `wrong` times as high as it should be."""
    p = np.linspace(-2, 6, 17)
    exact = np.where(p > 1, -p, 0.0)
    made = exact * (1 + wrong)

    def band(values: Any, width: float) -> Band:
        spread = width * np.abs(values)
        rows = (values, values - spread, values + spread)
        median, low, high = (tuple(map(float, row.round(4))) for row in rows)
        return Band(median=median, low=low, high=high)

    return ResponseCurve(
        label=label,
        layer=1,
        p=tuple(p.tolist()),
        exact=tuple(exact.tolist()),
        precisions=tuple(
            CurvePrecision(dtype=name, layer=band(made, 0.06), hook=band(exact, 0.03))
            for name in ("bfloat16", "float32")
        ),
    )


def with_curves(*labels: str, wrong: float = 0.0) -> FidelityReport:
    """A report with a curve for each label."""
    return report().model_copy(update={"curves": tuple(curve(label, wrong) for label in labels)})


def measured(error: float = 0.0021, wrong: float = 0.0) -> FidelityReport:
    """A report of two edits in bfloat16, with curves."""
    labels = ("ablate feature 12 (regular expressions)", "scale feature 40")
    edits = tuple(
        edit(
            label=label,
            acted=GroupFidelity(
                tokens=tokens, edit_effect=effect, noise_floor=0.002, splice_error=error, ratio=None
            ),
        )
        for label, tokens, effect in zip(labels, (4000, 120), (0.2, 1.4), strict=True)
    )
    made = with_curves(*labels, wrong=wrong)
    served = made.precisions[1].model_copy(update={"edits": edits})
    return made.model_copy(update={"precisions": (served, made.precisions[0])})


def spliced(layers: int = 40, **fields: Any) -> Manifest:
    """A manifest of many layers; one inserted, one in which an inserted one is torn apart."""
    torn = [
        {"attention": {"base": 2}, "mlp": {"splice": 1}},
        {"attention": {"splice": 1}, "mlp": {"base": 2}},
    ]
    others = [{"base": i} for i in range(3, layers)]
    return manifest(
        layer_map=[{"base": 0}, {"base": 1}, {"splice": 0}, *torn, *others],
        biases=[{"site": layers - 1, "tensor": "b", "terms": [TERM]}],
        **fields,
    )


TERM = {
    "label": "steer vector",
    "kind": "steer",
    "formula": "h + |strength|·d",
    "edit": {"kind": "steer"},
    "source": {},
}
