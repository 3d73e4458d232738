"""The public functions, as `import hubsplice` offers them: defaults, paths of any kind, progress.

In come a user's values; out go results that show themselves. The command line calls the same
functions. It may import `github_actions` and what stands above it.
"""
