"""What the composite actions run: targets, summaries, checks of what was published.

In come the environment of a workflow and the outputs of the command line; out go step summaries and
outputs. It may import `hub` and what stands above it.
"""
