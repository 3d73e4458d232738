"""Verification of a published model, from its files and its base, by someone else.

In come a folder or a repository, and the base; out go findings, each passed or not. It may import
`building` and what stands above it.
"""

from __future__ import annotations

from hubsplice.verifying.result import Check
from hubsplice.verifying.verify import Run, Verification, verify

__all__ = ["Check", "Run", "Verification", "verify"]
