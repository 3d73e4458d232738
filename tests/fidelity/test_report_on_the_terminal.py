"""Numbers as people read them, and the report on the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hubsplice.fidelity import summary
from hubsplice.fidelity.format import count, interval, percent, significant
from hubsplice.fidelity.report import FidelityReport, Interval
from tests.card.examples import report, site


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (1.0, "1.00"),
        (1.0249, "1.02"),
        (0.0127, "0.0127"),
        (0.001, "0.00100"),
        (7.3e-7, "7.30e-7"),
        (9.999e-4, "0.00100"),
        (12.34, "12.3"),
        (99.96, "100"),
        (999.6, "1,000"),
        (12345.0, "12,300"),
        (1.5e9, "1.50e9"),
        (-0.25, "-0.250"),
    ],
)
def test_three_significant_digits(value: float | None, text: str) -> None:
    assert significant(value) == text


@given(st.floats(-1e300, 1e300))
def test_what_is_shown_is_the_value(value: float) -> None:
    assert float(significant(value).replace(",", "")) == pytest.approx(value, rel=5.001e-3)


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100%"), (0.99999, "99.9%"), (0.98523, "98.5%"), (0.00001, "0.1%"), (0.0, "0%")],
)
def test_only_the_whole_is_a_hundred_percent(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (None, "–"),
        (Interval(value=1.02, low=0.951, high=1.1), "1.02 (0.95–1.10)"),
        (Interval(value=0.98, low=0.9, high=1.06), "0.980 (0.900–1.060)"),
        (Interval(value=12.3, low=8.0, high=18.0), "12.3 (8.0–18.0)"),
        (Interval(value=4321.0, low=1234.5, high=9e6), "4,320 (1,230–9.00e6)"),
    ],
)
def test_intervals(estimate: Interval | None, text: str) -> None:
    assert interval(estimate) == text


def test_counts() -> None:
    assert count(1234567) == "1,234,567"


def printed(shown: FidelityReport, width: int = 100) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def test_the_verdict_is_the_first_line() -> None:
    assert printed(report()).splitlines()[0] == report().verdict


@pytest.mark.parametrize(("passed", "style"), [(True, "green"), (False, "red"), (None, None)])
def test_a_miss_is_red(passed: bool | None, style: str | None) -> None:
    console = Console(color_system="standard", force_terminal=True, width=100)
    with console.capture() as capture:
        console.print(report(passed=passed))
    first = capture.get().splitlines()[0]
    codes = {"green": "\x1b[1;32m", "red": "\x1b[1;31m", None: "\x1b[1m"}
    assert first.startswith(codes[style] + report().verdict[:10])


@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_shows_what_the_card_shows(width: int) -> None:
    text = printed(report(), width)
    assert "…" not in text
    for table in (
        summary.agreement(report()),
        summary.divergences(report()),
        summary.sites(report()),
        summary.sinks(report()),
    ):
        for row in table.rows:
            assert all(part in text for cell in row for part in cell.split())
    assert summary.GREEDY_MATCH in text
    assert "not exact: TopK of feature 12" in text


def test_text_is_not_markup() -> None:
    text = printed(report(verdict="[red]x[/red] [/]", approximations=["[bold]y"]))
    assert text.splitlines()[0] == "[red]x[/red] [/]"
    assert "[bold]y" in text


def test_every_word_is_defined() -> None:
    used = {
        *(row[0].split(",")[0] for row in summary.divergences(report()).rows),
        *(name.split(":")[0].split(" (")[0] for name in summary.agreement(report()).columns[1:]),
        *summary.features(report()).columns[-2:],
    } - {"edit effect / splice error"}
    assert used <= set(summary.DEFINITIONS)


def test_rows_have_a_cell_for_each_column() -> None:
    tables = (
        summary.agreement,
        summary.divergences,
        summary.sites,
        summary.sinks,
        summary.features,
    )
    for table in (make(report()) for make in tables):
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_a_site_where_nothing_was_edited() -> None:
    quiet = site(
        edited_tokens=0, residual_error=None, overall_residual_error=None, largest_sink_change=None
    )
    precision = report().model_dump()["precisions"][1] | {"sites": [quiet]}
    table = summary.sites(report(precisions=[precision]))
    assert table.rows == (("1", "bfloat16", "0", *["–"] * 5),)
    assert summary.sinks(report(precisions=[precision])).rows == (("1", "bfloat16", "17", "–"),)
