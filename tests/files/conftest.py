"""Fixtures that make base checkpoints, and a filesystem that shares blocks."""

from __future__ import annotations

from tests.checkpoint.conftest import make_base, reflink_folder

__all__ = ["make_base", "reflink_folder"]
