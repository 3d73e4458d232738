"""The compiler: a plan from configurations, edits as ridge functions, compiled layers, names.

In comes a recipe; out go a plan that `check` shows, and from the same plan all new tensors and the
configuration of the result. It may import `families` and what stands above it.
"""
