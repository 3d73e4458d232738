"""The kinds of edits: one small file each, from a feature to a piecewise-linear function.

Input: the fields of an edit and its features. Output: ridge functions. Importing this package
registers all kinds that hubsplice has. May import `features` and what is above it.
"""

from __future__ import annotations

from hubsplice.edits import (
    ablate,
    add,
    cap,
    clamp,
    clamp_projection,
    floor,
    gated_steer,
    project,
    scale,
    steer,
)

__all__ = [
    "ablate",
    "add",
    "cap",
    "clamp",
    "clamp_projection",
    "floor",
    "gated_steer",
    "project",
    "scale",
    "steer",
]
