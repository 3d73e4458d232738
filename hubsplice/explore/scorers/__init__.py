"""What an answer is worth: one small file for each kind of score.

Input: the fields of a scorer and answers. Output: a number for each. Importing this package
registers all kinds that hubsplice has; others add theirs by the entry points `hubsplice.scorers`.
"""

from __future__ import annotations

from hubsplice.explore.scorers import classifier, compiles, judge, regex, tokens

__all__ = ["classifier", "compiles", "judge", "regex", "tokens"]
