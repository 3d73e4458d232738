"""The fixtures that splice folders and train tiny models."""

from __future__ import annotations

from tests.fidelity.compiled import trained_variant
from tests.splicing import splice

__all__ = ["splice", "trained_variant"]
