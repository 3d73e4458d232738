"""The edit kinds; importing this package registers all that hubsplice brings."""

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
