"""The fixture that splices folders."""

from __future__ import annotations

from tests.splicing import splice

__all__ = ["splice"]
