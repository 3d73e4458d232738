"""Verification of a published model by someone else, from its files and its base.

Input: a folder or a repository, and the base. Output: findings, each passed or not. May import
`building` and what is above it.
"""

from __future__ import annotations

from hubsplice.verifying.result import Check
from hubsplice.verifying.verify import Run, Verification, verify

__all__ = ["Check", "Run", "Verification", "verify"]
