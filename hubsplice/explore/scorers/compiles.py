"""Answers with Python code that compiles."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Literal

from hubsplice.explore.scorers.base import SCORERS, Scorable, Scorer

_FENCED = re.compile(r"```(?:python|py)?[^\S\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_LONGEST = 20_000


@SCORERS.register("compiles")
class Compiles(Scorer):
    """1 where all Python code of an answer parses, 0 where it doesn't; without code it's neither.

    The code is what stands between fences; it is parsed and never run. A prompt that ends behind
    an opening fence, as models without a chat template are asked for code, opens the answer's.
    """

    kind: Literal["compiles"] = "compiles"

    def score(self, answer: Scorable) -> float | None:
        fences = answer.prompt.split("```")
        opened = f"```{fences[-1]}" if len(fences) % 2 == 0 else ""
        found = _FENCED.findall(opened + answer.text)
        blocks = [block[:_LONGEST] for block in found if block.strip()]
        return float(all(map(_parses, blocks))) if blocks else None


def _parses(code: str) -> bool:
    with warnings.catch_warnings():
        # Odd escapes are the code's business.
        warnings.simplefilter("ignore")
        try:
            ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True
