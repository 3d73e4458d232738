"""The figures that texts quote are those of the benchmark's committed results."""

from __future__ import annotations

from pathlib import Path

from hubsplice.serving.measured import MEASURED, by_scheme

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "quantised.md"


def test_every_figure_is_a_result_and_every_result_is_quoted() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in RESULTS.read_text(encoding="utf-8").splitlines()
        if line.count(" | ") == 6 and any(m.scheme in line for m in MEASURED)
    ]
    found = {
        (
            edit.rsplit(" (", 1)[0],
            scheme,
            floor,
            whole.split(" ")[0],
            kept.split(" ")[0],
            *residuals,
        )
        for edit, scheme, floor, whole, kept, *residuals in rows
    }
    assert found == {
        (
            m.edit,
            m.scheme,
            f"{m.floor:.3g}",
            f"{m.whole:.2f}",
            f"{m.kept:.2f}",
            f"{m.whole_residual:.1%}",
            f"{m.kept_residual:.1%}",
        )
        for m in MEASURED
    }


def test_by_scheme() -> None:
    assert [m for rows in by_scheme().values() for m in rows] == [*MEASURED]
