"""The fixture that makes base checkpoints."""

from __future__ import annotations

from tests.checkpoint.conftest import make_base

__all__ = ["make_base"]
