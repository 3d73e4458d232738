"""Serving: which engines honour what a spliced model needs, and the commands that start them.

In comes a manifest; out go verdicts and command lines. It may import `fidelity` and what stands
above it.
"""
