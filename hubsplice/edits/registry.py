"""The registry of edit kinds."""

from __future__ import annotations

from hubsplice.edits.base import Edit
from hubsplice.registry import Registry

EDITS: Registry[type[Edit]] = Registry("hubsplice.edits")
