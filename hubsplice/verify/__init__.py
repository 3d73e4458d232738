"""Proof, from published files and the base, of what a spliced checkpoint is and does."""

from __future__ import annotations

from hubsplice.verify.result import Check, Verification
from hubsplice.verify.verify import verify

__all__ = ["Check", "Verification", "verify"]
