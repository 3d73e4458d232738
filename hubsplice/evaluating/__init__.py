"""A built checkpoint beside its base: scores of answers, neutral text, and the harness's tasks.

Input: two folders. Output: `evaluation.json`, and the same as the Hub takes it. May import
`explore` and what is above it.
"""
