"""The compiler: a plan from configurations alone, then edits, compiled layers and tensor names.

Input: a recipe. Output: a plan, which `check` shows, and from the same plan all new tensors and the
configuration of the result. May import `families` and what is above it.
"""
