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
    mantissa, power = _scientific(value)
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
    return f"{min(max(share, 0.001), 0.999):.1%}"


def interval(estimate: Interval | None) -> str:
    """An estimate with its 95% interval: `1.02 (0.95–1.10)`; a dash for None."""
    if estimate is None:
        return MISSING
    power = _scientific(estimate.value)[1]
    if -2 <= power <= 2:
        # As many decimals in the interval as in what it is of.
        low, high = (f"{end:.{2 - power}f}" for end in (estimate.low, estimate.high))
    else:
        low, high = significant(estimate.low), significant(estimate.high)
    return f"{significant(estimate.value)} ({low}–{high})"


def _scientific(value: float) -> tuple[str, int]:
    """The rounded mantissa and the power of ten; 999.6 counts as a thousand."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return mantissa, int(exponent)
