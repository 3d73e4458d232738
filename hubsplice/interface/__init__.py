"""The public functions, as `import hubsplice` offers them: defaults, paths of any kind, progress.

Input: a user's values. Output: results that show themselves in a notebook. The command line calls
the same functions. May import `github_actions` and what is above it.
"""
