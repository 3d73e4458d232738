"""The recipe: what a user writes, as pydantic models, and the errors in it.

Input: YAML. Output: a `Recipe` that is valid by itself, or one line for each problem, with the
field, the value and what was expected. May import `edits` and what is above it.
"""
