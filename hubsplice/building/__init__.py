"""The build: compile, write, measure and describe, into a folder that appears whole.

In comes a recipe, or a folder that was built; out goes a folder with checkpoint, manifest, report
and card. It may import `card` and what stands above it.
"""
