"""Proof, from published files and the base, of what a spliced checkpoint is and does."""

from __future__ import annotations

from hubsplice.verify.result import Check
from hubsplice.verify.verify import Run, Verification, verify

__all__ = ["Check", "Run", "Verification", "verify"]
