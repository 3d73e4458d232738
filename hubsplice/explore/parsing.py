"""Strengths and layers of a sweep as a command line has them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hubsplice.errors import RecipeError


def strengths_of(text: str) -> Iterator[str]:
    """The strengths of `A,B,…` or of `A:B:N`: N numbers from A to B at even distances.

    Raises:
        RecipeError: it is neither.
    """
    if ":" not in text:
        yield from (part.strip() for part in text.split(",") if part.strip())
        return
    parts = text.split(":")
    try:
        first, last, count = float(parts[0]), float(parts[1]), int(parts[2])
    except (ValueError, IndexError):
        first = last = float("nan")
        count = 0
    if len(parts) != 3 or count < 2 or not abs(first) + abs(last) < float("inf"):
        raise RecipeError(f"--strengths: {text!r}: expected A,B,… or A:B:N with N of 2 or more")
    for i in range(count):
        yield f"{first + (last - first) * i / (count - 1):.6g}"


def layers_of(text: str) -> tuple[int, ...]:
    """The layers of `A,B,…` or of `A:B` and `A:B:STEP`, the last one included.

    Raises:
        RecipeError: it is neither.
    """
    try:
        numbers = [int(part) for part in re.split("[:,]", text)]
    except ValueError:
        numbers = []
    if ":" not in text and numbers:
        return tuple(numbers)
    if 2 <= len(numbers) <= 3 and "," not in text:
        first, last, step = (*numbers, 1)[:3]
        if step > 0 and first <= last:
            return tuple(range(first, last + 1, step))
    raise RecipeError(f"--layers: {text!r}: expected A,B,… or A:B or A:B:STEP")
