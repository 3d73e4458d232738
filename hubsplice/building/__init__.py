"""The build: compile, write, measure and describe, into a folder that appears whole.

Input: a recipe, or a folder that was built. Output: a folder with checkpoint, manifest, report and
card. May import `card` and what is above it.
"""
