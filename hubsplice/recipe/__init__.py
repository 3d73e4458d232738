"""The recipe: what a user writes, as pydantic models, and its errors.

In comes YAML; out goes a `Recipe` that is valid by itself, or one line per problem with the field,
the value and what was expected. It may import `edits` and what stands above it.
"""
