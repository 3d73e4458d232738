"""The fixtures that splice folders and train tiny models."""

from __future__ import annotations

from tests.compiling.trained import train
from tests.splicing import splice

__all__ = ["splice", "train"]
