"""Numbers of a report as people read them; the terminal and the card share them."""

from __future__ import annotations

from hubsplice.fidelity.report import Interval

MISSING = "–"


def significant(value: float | None) -> str:
    """Three significant digits: `1.02`, `0.0127`, `7.30e-7`, `12,300`; a dash for None."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    # Rounded first, so that 999.6 counts as a thousand.
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    power = int(exponent)
    if power < -3 or power > 5:
        return f"{mantissa}e{power}"
    if power >= 3:
        return f"{round(value, 2 - power):,.0f}"
    return f"{value:.{2 - power}f}"


def count(value: int) -> str:
    """An exact count, with separators: `20,000`."""
    return f"{value:,}"


def percent(share: float) -> str:
    """A share as a percentage; only what is the whole reads `100%`, and only nothing `0%`."""
    if share in (0, 1):
        return f"{share:.0%}"
    if share > 0.9995:
        return ">99.9%"
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share:.1%}"


def interval(estimate: Interval | None) -> str:
    """An estimate with its 95% interval: `1.02 (0.95–1.10)`; a dash for None."""
    if estimate is None:
        return MISSING
    low, high = significant(estimate.low), significant(estimate.high)
    return f"{significant(estimate.value)} ({low}–{high})"
