"""The edit kinds: one small file each, from a feature to a piecewise-linear function.

In come the fields of an edit and its features; out go ridge functions. Importing this package
registers all kinds that hubsplice brings. It may import `features` and what stands above it.
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
