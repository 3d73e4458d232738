"""Serving: which engines honour what a spliced model needs, and the commands that start them.

Input: a manifest. Output: verdicts and command lines. May import `fidelity` and what is above it.
"""
